//! Launch: the parent's side of starting a container.
