//! Makes the table of the page's files, so that the binary carries the page and needs no folder beside it.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fs,
    hash::{DefaultHasher, Hasher},
    io,
    path::{Path, PathBuf},
};

fn main() -> Result<(), Box<dyn Error>> {
    let dist = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("page/dist");
    println!("cargo:rerun-if-changed={}", dist.display());
    println!("cargo:rerun-if-changed=build.rs");
    let mut files = BTreeMap::new();
    collect(&dist, "", &mut files).map_err(|e| format!("cannot read {}: {e}; build the page first", dist.display()))?;
    if !files.contains_key("/index.html") {
        return Err(format!("{} has no index.html; build the page first", dist.display()).into());
    }

    // The files are copied, so that what is compiled in is what was hashed, even if the page is built again meanwhile.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut table = format!("static ASSETS: [Asset; {}] = [\n", files.len());
    for (index, (path, file)) in files.iter().enumerate() {
        let bytes = fs::read(file)?;
        let copy = out.join(format!("asset-{index}"));
        fs::write(&copy, &bytes)?;
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        table.push_str(&format!(
            "Asset {{ path: {path:?}, content_type: {:?}, etag: {:?}, immutable: {}, bytes: include_bytes!({copy:?}) }},\n",
            content_type(path).ok_or_else(|| format!("page/dist{path} has an ending without a content type"))?,
            format!("\"{:016x}\"", hasher.finish()),
            is_hashed(path),
        ));
    }
    table.push_str("];\n");
    fs::write(out.join("assets.rs"), table)?;
    Ok(())
}

fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &path, files)?;
        } else {
            files.insert(path, entry.path());
        }
    }
    Ok(())
}

/// The bundler puts a hash of at least 8 characters before the ending of everything under `assets/`.
fn is_hashed(path: &str) -> bool {
    let stem = path.strip_prefix("/assets/").and_then(|name| name.rsplit_once('.')).map_or("", |(stem, _)| stem);
    let hash = stem.get(stem.len().saturating_sub(9)..).and_then(|end| end.strip_prefix(['-', '.']));
    hash.is_some_and(|hash| hash.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'))
}

fn content_type(path: &str) -> Option<&'static str> {
    Some(match path.rsplit_once('.')?.1 {
        "css" => "text/css; charset=utf-8",
        "html" => "text/html; charset=utf-8",
        "ico" => "image/x-icon",
        "jpg" => "image/jpeg",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "txt" => "text/plain; charset=utf-8",
        "webmanifest" => "application/manifest+json",
        "webp" => "image/webp",
        "woff2" => "font/woff2",
        _ => return None,
    })
}
