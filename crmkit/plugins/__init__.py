"""The plugins that ship with crmkit; each uses the facade only, as anybody's would."""
