"""The door: files and options from outside are checked here, once, and files that go out are whole or not there."""
