"""The command line: `coatcheck serve | accounts | sessions | keys`."""
