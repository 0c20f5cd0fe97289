//! Compiles the shim over the parts of libtorch that its Rust bindings lack. It is linked with libtorch_cpu and libc10
//! alone: on a machine without CUDA the same binary runs.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=shim/shim.cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Some(libtorch) = env::var_os("LIBTORCH").map(PathBuf::from) else {
        println!("cargo:warning=LIBTORCH is not set; source scripts/env.sh first");
        return;
    };
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .flag("-isystem")
        .flag(libtorch.join("include"))
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .file("shim/shim.cpp")
        .compile("undertone_shim");
    println!("cargo:rustc-link-search=native={}", libtorch.join("lib").display());
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
}
