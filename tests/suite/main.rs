//! Black-box suite: runs the built `pura` and looks only at what a user could see.
