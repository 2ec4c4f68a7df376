"""Who may put what: access files, rules, this machine's addresses."""
