"""The only code that knows Darknet's file formats."""
