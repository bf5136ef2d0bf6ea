//! Records, slices and the lines of a watch.
