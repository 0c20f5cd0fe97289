//! The dynamic loader and the NVIDIA driver, behind functions that are safe to call.
#![allow(unsafe_code, reason = "dlopen, dlsym and the driver's C functions; each call says why it is sound")]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::Path;

/// A loaded library. It is never unloaded: libtorch registers its kernels for good.
#[derive(Clone, Copy, Debug)]
pub(super) struct Library(*mut c_void);

/// Loads a library by path or name with every symbol bound, and offers its symbols to libraries loaded later.
///
/// # Errors
/// What the loader says.
pub(super) fn load(name: &Path) -> Result<Library, String> {
    open(name, libc::RTLD_NOW | libc::RTLD_GLOBAL)
}

/// Whether a library of this name is already part of the process.
pub(super) fn is_loaded(name: &str) -> bool {
    open(Path::new(name), libc::RTLD_LAZY | libc::RTLD_NOLOAD).is_ok()
}

fn open(name: &Path, flags: c_int) -> Result<Library, String> {
    let name = CString::new(name.as_os_str().as_encoded_bytes()).map_err(|_| "name holds a zero byte".to_owned())?;
    // SAFETY: the name is a C string. Loading runs the library's constructors: we load only libtorch, what it names, its compiler, and
    // the driver, from folders that the user or the loader's own search chose.
    let handle = unsafe { libc::dlopen(name.as_ptr(), flags) };
    if !handle.is_null() {
        return Ok(Library(handle));
    }
    // SAFETY: `dlerror` answers null or a C string that is valid until the next call on this thread.
    let message = unsafe {
        let message = libc::dlerror();
        (!message.is_null()).then(|| CStr::from_ptr(message).to_string_lossy().into_owned())
    };
    Err(message.unwrap_or_else(|| "the loader gave no reason".to_owned()))
}

/// What a GPU can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gpu {
    /// As the driver names it.
    pub(crate) name: String,
    /// Compute capability: (9, 0) for an H100.
    pub(crate) capability: (u32, u32),
}

/// What the driver says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Driver {
    /// The newest CUDA version that it runs: 13000 for 13.0.
    pub(crate) cuda: u32,
    /// The GPUs that this process may use, in order; an error code of `cuInit` in their place.
    pub(crate) gpus: Result<Vec<Gpu>, u32>,
}

/// Asks the driver, `libcuda.so.1`, for its version and its GPUs.
///
/// # Errors
/// What the loader says if there is no driver, or the name of a function that the driver lacks.
pub(super) fn ask_driver() -> Result<Driver, String> {
    let library = load(Path::new("libcuda.so.1"))?;
    // SAFETY: the types are those of cuda.h, which NVIDIA keeps stable.
    let (init, version, count, name, attribute) = unsafe {
        (
            symbol::<unsafe extern "C" fn(c_uint) -> c_uint>(library, c"cuInit")?,
            symbol::<unsafe extern "C" fn(*mut c_int) -> c_uint>(library, c"cuDriverGetVersion")?,
            symbol::<unsafe extern "C" fn(*mut c_int) -> c_uint>(library, c"cuDeviceGetCount")?,
            symbol::<unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_uint>(library, c"cuDeviceGetName")?,
            symbol::<unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_uint>(library, c"cuDeviceGetAttribute")?,
        )
    };
    let ask = |attribute_number: c_int, device: c_int| {
        let mut value = 0;
        // SAFETY: the function writes one int. With one process a device's handle is its number.
        match unsafe { attribute(&raw mut value, attribute_number, device) } {
            0 => Ok(value.unsigned_abs()),
            code => Err(code),
        }
    };
    let (mut cuda, mut number) = (0, 0);
    // SAFETY: each function writes one int; `cuInit` may be called any number of times.
    let started = unsafe {
        version(&raw mut cuda);
        match init(0) {
            0 => count(&raw mut number),
            code => code,
        }
    };
    let gpu = |device| {
        let mut text = [0_u8; 256];
        // SAFETY: the function writes at most 255 bytes and a zero; the buffer has room for them and ends with a zero.
        let code = unsafe { name(text.as_mut_ptr().cast(), 255, device) };
        let name = CStr::from_bytes_until_nul(&text).map(|name| name.to_string_lossy().into_owned());
        match (code, name) {
            // 75 and 76 are the major and the minor compute capability.
            (0, Ok(name)) => Ok(Gpu { name, capability: (ask(75, device)?, ask(76, device)?) }),
            (code, _) => Err(code),
        }
    };
    let gpus = match started {
        0 => (0..number).map(gpu).collect(),
        code => Err(code),
    };
    Ok(Driver { cuda: cuda.unsigned_abs(), gpus })
}

/// A function of a library.
///
/// # Safety
/// `F` must be the type of the function of this name.
///
/// # Errors
/// The name, if the library has none.
pub(super) unsafe fn symbol<F: Copy>(library: Library, name: &CStr) -> Result<F, String> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: the handle came from dlopen and is never closed.
    let found = unsafe { libc::dlsym(library.0, name.as_ptr()) };
    if found.is_null() {
        return Err(format!("the library has no {}", name.to_string_lossy()));
    }
    // SAFETY: a function pointer has the size of a data pointer, and the caller vouches for its type.
    Ok(unsafe { std::mem::transmute_copy(&found) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_loaded_is_known_and_what_is_absent_is_named() {
        assert!(is_loaded("libtorch_cpu.so") && is_loaded("libc.so.6"));
        assert!(!is_loaded("libabsent.so.7"));
        let message = load(Path::new("libabsent.so.7")).expect_err("absent");
        assert!(message.contains("libabsent.so.7"), "{message}");
        assert!(load(Path::new("a\0b")).is_err());
    }

    #[test]
    fn a_driver_answers_or_is_said_to_be_absent() {
        match ask_driver() {
            Ok(driver) => assert!(driver.cuda > 0),
            Err(message) => assert!(message.contains("libcuda.so.1"), "{message}"),
        }
    }
}
