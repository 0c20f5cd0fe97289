//! Generates the Rust of `undertone/v1/*.proto`, with a pure-Rust compiler so that no `protoc` need be installed, and
//! the descriptor that gRPC reflection serves.

use std::{env, error::Error, fs, path::PathBuf};

use protox::prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=undertone");
    let descriptors = protox::compile(
        ["undertone/v1/records.proto", "undertone/v1/scoring.proto", "undertone/v1/queries.proto"],
        ["."],
    )?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .type_attribute(".undertone.v1", "#[derive(serde::Serialize)] #[serde(rename_all = \"snake_case\")]")
        .compile_fds(descriptors)?;
    Ok(())
}
