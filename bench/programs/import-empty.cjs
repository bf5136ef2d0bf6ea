// What every import takes, whatever it imports.
