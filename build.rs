//! Tells the linker what an addon of Node.js may leave undefined.

fn main() {
    napi_build::setup();
}
