//! Init: applies the plan, in order, and so becomes the program.
