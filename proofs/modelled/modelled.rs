//! The build script of the libraries in this workspace: they take atomics, locks and threads from `aio-checker`.

fn main() {
    println!("cargo::rerun-if-changed=../modelled.rs");
    println!("cargo::rustc-cfg=aio_modelled");
}
