"""Where frames come from and where they go. Modules are imported by name; no code here."""
