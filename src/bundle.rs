//! A bundle: a directory with a config.json.
