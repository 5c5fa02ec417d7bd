"""The commands besides `serve`, grouped as the command line groups them; `cli` puts them together."""
