//! libtorch's CUDA half, found and loaded at run time.
//!
//! Guarantees: the binary is linked with no CUDA library; nothing of torch is loaded unless everything is there; when something is
//! not, one error names every missing library and what brings it. Libraries are loaded in the order of their needs, by
//! path, so that it does not matter whether the folders' own search paths fit together.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use undertone_error::{Error, ErrorKind, Result};

use super::{dynamic, elf};

/// Names the folder that holds `libtorch_cuda.so`, if it does not lie beside `libtorch_cpu.so`.
pub(super) const VARIABLE: &str = "UNDERTONE_LIBTORCH_CUDA";
/// The release of torch that this binary is built for: its halves must be of one release.
pub(super) const TORCH: &str = "2.11.0";
const TARGET: &str = "libtorch_cuda.so";
/// Must be loaded before all others of torch: libtorch_nvshmem takes symbols from it without naming it.
const FIRST: &str = "libc10_cuda.so";

static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Names the folder with `libtorch_cuda.so`: the `torch/lib` of a Python environment with PyTorch. It counts for the whole
/// process; the first call wins, and the variable `UNDERTONE_LIBTORCH_CUDA` is used if there is none.
pub fn use_libtorch_cuda(folder: PathBuf) {
    let _ = FOLDER.set(folder);
}

/// Loads libtorch_cuda and everything it needs, once.
///
/// # Errors
/// `Unavailable`, naming each missing library and the mend.
pub(super) fn load() -> Result<()> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| load_all().map_err(|error| error.to_string()));
    loaded.clone().map_err(|message| Error::new(ErrorKind::Unavailable, message))
}

/// Whether everything is there, without loading any of it.
///
/// # Errors
/// As [`load`].
pub(super) fn check() -> Result<Vec<PathBuf>> {
    plan(&target()?, &System)
}

/// The path of another library that lies with those of CUDA; `None` if it does not, or if CUDA is not there.
pub(super) fn path(name: &str) -> Option<PathBuf> {
    wheel_folders(&target().ok()?).into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn load_all() -> Result<()> {
    let plan = check()?;
    for path in &plan {
        dynamic::load(path).map_err(|reason| {
            Error::new(ErrorKind::Unavailable, "cannot load a library of CUDA")
                .with("library", path.display())
                .source(reason)
                .help(format!("install torch {TORCH} again, whole: `pip install --force-reinstall torch=={TORCH}`"))
        })?;
    }
    tracing::info!(libraries = plan.len(), from = %plan.last().map(|path| path.display().to_string()).unwrap_or_default(), "CUDA loaded");
    Ok(())
}

/// The path of libtorch_cuda, where the configuration, the variable or libtorch_cpu says.
fn target() -> Result<PathBuf> {
    let named = FOLDER.get().cloned().or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from));
    find(named.as_deref(), beside_libtorch().as_deref())
}

/// The folder of the libtorch_cpu that runs in this process.
fn beside_libtorch() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let path =
        maps.lines().find_map(|line| line.get(line.find('/')?..).filter(|path| path.ends_with("/libtorch_cpu.so")))?;
    Some(Path::new(path).parent()?.to_owned())
}

/// The path of libtorch_cuda: in the folder that was named, and nowhere else if one was; else beside libtorch_cpu.
fn find(named: Option<&Path>, beside: Option<&Path>) -> Result<PathBuf> {
    let help = format!(
        "`pip install torch=={TORCH}` on this machine, and set {VARIABLE} to the folder torch/lib of its site-packages"
    );
    let fail = |looked: String| {
        Error::new(ErrorKind::Unavailable, "libtorch_cuda.so is not there").with("looked in", looked).help(&help)
    };
    if let Some(folder) = named {
        // People point to the environment, to torch, to its lib, or at the file itself.
        let places = [folder.join(TARGET), folder.join("lib").join(TARGET), folder.join("torch/lib").join(TARGET)];
        if folder.file_name().is_some_and(|name| name == TARGET) && folder.is_file() {
            return same_release(folder.to_owned());
        }
        let found = places.into_iter().find(|path| path.is_file());
        return same_release(found.ok_or_else(|| fail(folder.display().to_string()))?);
    }
    let path = beside.map(|folder| folder.join(TARGET)).filter(|path| path.is_file());
    path.ok_or_else(|| fail(beside.map_or_else(|| "no folder".to_owned(), |folder| folder.display().to_string())))
}

/// Refuses a torch of another release, whose halves would not fit together. A folder that does not say is tried.
fn same_release(path: PathBuf) -> Result<PathBuf> {
    let said =
        path.parent().and_then(|lib| std::fs::read_to_string(lib.join("../version.py")).ok()).unwrap_or_default();
    let version = said.lines().find_map(|line| line.trim().strip_prefix("__version__")?.split(['\'', '"']).nth(1));
    match version {
        Some(version) if version.split('+').next() != Some(TORCH) => Err(Error::new(
            ErrorKind::Unavailable,
            "libtorch_cuda.so is of another release than this binary's libtorch",
        )
        .with("library", path.display())
        .with("found", version)
        .with("needed", TORCH)
        .help(format!("`pip install torch=={TORCH}`, and set {VARIABLE} to its torch/lib"))),
        _ => Ok(path),
    }
}

/// What the search asks the machine.
pub(super) trait Machine {
    /// Whether the library is part of the process already.
    fn has_loaded(&self, name: &str) -> bool;
    /// Whether the loader finds it by its name alone.
    fn finds(&self, name: &str) -> bool;
}

struct System;

impl Machine for System {
    fn has_loaded(&self, name: &str) -> bool {
        dynamic::is_loaded(name)
    }

    fn finds(&self, name: &str) -> bool {
        dynamic::load(Path::new(name)).is_ok()
    }
}

/// The libraries to load, each after what it needs; the target comes last. Libraries that are loaded, or that the loader
/// finds by name, are not among them.
///
/// # Errors
/// `Unavailable`, naming every library that is missing and what brings it.
pub(super) fn plan(target: &Path, machine: &dyn Machine) -> Result<Vec<PathBuf>> {
    let mut search =
        Search { machine, folders: wheel_folders(target), seen: HashSet::new(), plan: Vec::new(), missing: Vec::new() };
    let first = target.with_file_name(FIRST);
    if first.is_file() && search.seen.insert(FIRST.to_owned()) && !machine.has_loaded(FIRST) {
        search.visit(&first)?;
    }
    search.visit(target)?;
    let Search { plan, mut missing, .. } = search;
    if missing.is_empty() {
        return Ok(plan);
    }
    missing.sort();
    let mut mends: Vec<String> = missing.iter().map(|name| mend(name)).collect();
    mends.sort();
    mends.dedup();
    Err(Error::new(ErrorKind::Unavailable, "libraries that CUDA needs are missing")
        .with("missing", missing.join(", "))
        .with("needed by", target.display())
        .help(mends.join("; ")))
}

/// NVIDIA's wheels lie beside torch: `site-packages/nvidia/<package>/lib`.
fn wheel_folders(target: &Path) -> Vec<PathBuf> {
    let lib = target.parent().unwrap_or(Path::new("."));
    let mut folders = vec![lib.to_owned()];
    let Ok(packages) = std::fs::read_dir(lib.join("../../nvidia")) else { return folders };
    let mut found: Vec<_> = packages.flatten().map(|package| package.path().join("lib")).collect();
    found.sort();
    folders.extend(found);
    folders
}

struct Search<'a> {
    machine: &'a dyn Machine,
    folders: Vec<PathBuf>,
    seen: HashSet<String>,
    plan: Vec<PathBuf>,
    missing: Vec<String>,
}

impl Search<'_> {
    fn visit(&mut self, path: &Path) -> Result<()> {
        let dynamic = elf::read(path).map_err(|error| {
            Error::new(ErrorKind::Unavailable, "cannot read a library of CUDA")
                .with("library", path.display())
                .source(error)
                .help(format!("install torch {TORCH} again, whole"))
        })?;
        for name in &dynamic.needed {
            if !self.seen.insert(name.clone()) || self.machine.has_loaded(name) {
                continue;
            }
            let mut folders = dynamic.folders.iter().chain(&self.folders);
            match folders.find_map(|folder| Some(folder.join(name)).filter(|path| path.is_file())) {
                Some(path) => self.visit(&path)?,
                None if self.machine.finds(name) => {}
                None => self.missing.push(name.clone()),
            }
        }
        self.plan.push(path.to_owned());
        Ok(())
    }
}

/// What brings a library.
fn mend(name: &str) -> String {
    match name {
        "libcuda.so.1" => super::cuda::DRIVER_MEND.to_owned(),
        _ => format!(
            "`pip install torch=={TORCH}` brings NVIDIA's libraries; set {VARIABLE} to the torch/lib of that environment"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A machine that has libtorch and the C library, and the named ones.
    struct Fake(&'static [&'static str]);

    impl Machine for Fake {
        fn has_loaded(&self, name: &str) -> bool {
            name == "libtorch_cpu.so"
        }

        fn finds(&self, name: &str) -> bool {
            name.starts_with("libc.so") || name.starts_with("libgcc") || self.0.contains(&name)
        }
    }

    /// Builds `lib<name>` in a folder, linked with others by their names.
    fn build(folder: &Path, name: &str, needs: &[&str]) {
        std::fs::create_dir_all(folder).unwrap();
        let stubs = folder.join(format!("stubs-{name}"));
        std::fs::create_dir_all(&stubs).unwrap();
        let compile = |out: &Path, soname: &str, with: &[PathBuf]| {
            let done = Command::new("cc")
                .args(["-shared", "-nostdlib", "-x", "c", "/dev/null", "-x", "none", "-Wl,--no-as-needed"])
                .arg(format!("-Wl,-soname,{soname}"))
                .args(with)
                .arg("-o")
                .arg(out)
                .status()
                .unwrap();
            assert!(done.success(), "cc is needed to build this crate");
        };
        let with: Vec<PathBuf> = needs.iter().map(|need| stubs.join(need)).collect();
        for (need, path) in needs.iter().zip(&with) {
            compile(path, need, &[]);
        }
        compile(&folder.join(name), name, &with);
    }

    #[test]
    fn libraries_come_after_what_they_need_and_from_the_wheels_folders() {
        let site = tempfile::tempdir().unwrap();
        let lib = site.path().join("torch/lib");
        build(&lib, TARGET, &["libtorch_cpu.so", "libtorch_nvshmem.so", "libc10_cuda.so", "libcublas.so.13"]);
        build(&lib, "libtorch_nvshmem.so", &[]);
        build(&lib, "libc10_cuda.so", &["libcudart.so.13"]);
        build(&site.path().join("nvidia/cu13/lib"), "libcudart.so.13", &[]);
        build(&site.path().join("nvidia/cu13/lib"), "libcublas.so.13", &["libcublasLt.so.13"]);
        build(&site.path().join("nvidia/other/lib"), "libcublasLt.so.13", &[]);
        let plan = plan(&lib.join(TARGET), &Fake(&[])).unwrap();
        let names: Vec<_> = plan.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        let torch = ["libcudart.so.13", "libc10_cuda.so", "libtorch_nvshmem.so"];
        assert_eq!(names, [&torch[..], &["libcublasLt.so.13", "libcublas.so.13", TARGET]].concat());
        // They load in that order with nothing else to help: no folder of theirs has a search path.
        for path in &plan[..plan.len() - 1] {
            dynamic::load(path).unwrap();
        }
    }

    #[test]
    fn every_missing_library_is_named_with_what_brings_it() {
        let folder = tempfile::tempdir().unwrap();
        let lib = folder.path().join("torch/lib");
        build(&lib, TARGET, &["libtorch_cpu.so", "libcublas.so.13", "libc10_cuda.so", "libcudnn.so.9", "libcuda.so.1"]);
        build(&lib, "libc10_cuda.so", &["libcudart.so.13"]);
        let error = plan(&lib.join(TARGET), &Fake(&["libcudnn.so.9"])).expect_err("three are missing").to_string();
        for part in ["libcublas.so.13", "libcudart.so.13", "libcuda.so.1", "580", "pip install torch==2.11.0", VARIABLE]
        {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
        assert!(!error.contains("libcudnn") && !error.contains("libtorch_cpu"), "{error}");
    }

    #[test]
    fn libtorch_cuda_is_looked_for_where_it_was_said_to_be_and_must_fit() {
        let site = tempfile::tempdir().unwrap();
        let lib = site.path().join("torch/lib");
        std::fs::create_dir_all(&lib).unwrap();
        let error = find(Some(site.path()), Some(&lib)).expect_err("not there").to_string();
        assert!(error.contains(&site.path().display().to_string()) && error.contains("torch==2.11.0"), "{error}");
        assert!(find(None, None).is_err());

        std::fs::write(lib.join(TARGET), "").unwrap();
        for named in [site.path().to_owned(), site.path().join("torch"), lib.clone(), lib.join(TARGET)] {
            assert_eq!(find(Some(&named), None).unwrap(), lib.join(TARGET), "{}", named.display());
        }
        assert_eq!(find(None, Some(&lib)).unwrap(), lib.join(TARGET));
        std::fs::write(site.path().join("torch/version.py"), "__version__ = '2.11.0+cu130'\n").unwrap();
        find(Some(&lib), None).unwrap();
        std::fs::write(site.path().join("torch/version.py"), "__version__ = '2.9.1'\n").unwrap();
        let error = find(Some(&lib), None).expect_err("another release").to_string();
        assert!(error.contains("2.9.1") && error.contains("2.11.0"), "{error}");
    }

    #[test]
    fn this_process_knows_where_its_libtorch_lies() {
        assert!(beside_libtorch().unwrap().join("libtorch_cpu.so").is_file());
    }
}
