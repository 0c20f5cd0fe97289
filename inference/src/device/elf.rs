//! Reads what a shared library says it needs, without loading it.
//!
//! `dlopen` names only the first library that it misses, and one message a try is no way to mend a machine. Only the
//! dynamic section of 64-bit little-endian ELF files is read, by seeking: libtorch_cuda has hundreds of megabytes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// What the dynamic section of a library says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dynamic {
    /// The libraries that it is linked with, by their file names.
    pub(super) needed: Vec<String>,
    /// Where the loader is to look for them, `$ORIGIN` replaced.
    pub(super) folders: Vec<PathBuf>,
}

/// Sections larger than this are not read: the file is no library of ours.
const LARGEST: u64 = 64 << 20;

/// Reads a library.
///
/// # Errors
/// Of the file system; `InvalidData` for a file that is no 64-bit little-endian ELF library.
pub(super) fn read(path: &Path) -> io::Result<Dynamic> {
    let mut file = File::open(path)?;
    let header = take(&mut file, 0, 64)?;
    if header.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err(invalid("not a 64-bit ELF file"));
    }
    let (table, size, count) = (u64_at(&header, 32)?, u16_at(&header, 54)?, u16_at(&header, 56)?);
    if size < 56 {
        return Err(invalid("program headers are too small"));
    }
    let headers = take(&mut file, table, u64::from(size) * u64::from(count))?;
    // (address, offset, size) of what is loaded, and where the dynamic section lies.
    let (mut loaded, mut dynamic) = (Vec::new(), None);
    for header in headers.chunks_exact(usize::from(size)) {
        let (offset, address, size) = (u64_at(header, 8)?, u64_at(header, 16)?, u64_at(header, 32)?);
        match u32_at(header, 0)? {
            1 => loaded.push((address, offset, size)),
            2 => dynamic = Some((offset, size)),
            _ => {}
        }
    }
    let (offset, size) = dynamic.ok_or_else(|| invalid("no dynamic section"))?;
    let entries = take(&mut file, offset, size)?;
    let (mut needed, mut paths, mut strings, mut strings_size) = (Vec::new(), Vec::new(), 0, 0);
    for entry in entries.chunks_exact(16) {
        let value = u64_at(entry, 8)?;
        match u64_at(entry, 0)? {
            0 => break,
            1 => needed.push(value),
            5 => strings = value,
            10 => strings_size = value,
            15 | 29 => paths.push(value),
            _ => {}
        }
    }
    let (address, offset, _) = loaded
        .into_iter()
        .find(|(address, _, size)| (*address..address.saturating_add(*size)).contains(&strings))
        .ok_or_else(|| invalid("string table is not loaded"))?;
    let strings = take(&mut file, offset.saturating_add(strings - address), strings_size)?;
    let text = |at: u64| -> io::Result<String> {
        let bytes =
            usize::try_from(at).ok().and_then(|at| strings.get(at..)).ok_or_else(|| invalid("string is outside"))?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    };
    let origin = path.parent().unwrap_or(Path::new(".")).display().to_string();
    let mut folders = Vec::new();
    for path in paths {
        let list = text(path)?.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin);
        folders.extend(list.split(':').filter(|folder| !folder.is_empty()).map(PathBuf::from));
    }
    Ok(Dynamic { needed: needed.into_iter().map(text).collect::<io::Result<_>>()?, folders })
}

fn take(file: &mut File, offset: u64, size: u64) -> io::Result<Vec<u8>> {
    if size > LARGEST {
        return Err(invalid("section is too large"));
    }
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(size).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == size {
        true => Ok(bytes),
        false => Err(invalid("file is cut off")),
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> io::Result<[u8; N]> {
    let found = bytes.get(at..at + N).and_then(|bytes| bytes.try_into().ok());
    found.ok_or_else(|| invalid("file is cut off"))
}

fn u16_at(bytes: &[u8], at: usize) -> io::Result<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> io::Result<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_test_binary_says_that_it_needs_libtorch() {
        let found = read(&std::env::current_exe().unwrap()).unwrap();
        assert!(found.needed.iter().any(|name| name == "libtorch_cpu.so"), "{found:?}");
        assert!(found.needed.iter().any(|name| name == "libc.so.6"), "{found:?}");
        assert!(!found.needed.iter().any(|name| name.contains("cuda")), "one binary, without CUDA: {found:?}");
        assert!(found.folders.iter().all(|folder| !folder.to_string_lossy().contains("$ORIGIN")), "{found:?}");
    }

    #[test]
    fn what_is_no_library_is_refused_without_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.so");
        let whole = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for bytes in [&b""[..], b"text", b"\x7fELF\x02\x01", &[0x7f; 200], &whole[..64], &whole[..900]] {
            std::fs::write(&path, bytes).unwrap();
            read(&path).expect_err("no library");
        }
        read(&folder.path().join("absent.so")).expect_err("no file");
    }
}
