//! GPU kernels of our own: compiled at run time by NVRTC, which every PyTorch for CUDA brings along, loaded and launched
//! through the driver.
//!
//! Guarantee: what cannot be compiled or loaded is an error that says why; a launch checks the driver's answer.
#![allow(unsafe_code, reason = "NVRTC's and the driver's C functions; each call says why it is sound")]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::Arc;

use super::dynamic::{self, Library, symbol};
use super::libraries;

const COMPILER: &str = "libnvrtc.so.13";
const BUILTINS: &str = "libnvrtc-builtins.so.13.0";

type Program = *mut c_void;

/// The functions of nvrtc.h that compiling takes.
struct Compiler {
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    code_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    code: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
}

impl Compiler {
    fn load() -> Result<Self, String> {
        // The compiler opens this one by its name, which the loader only knows once it is part of the process.
        let builtins = libraries::path(BUILTINS);
        let _ = dynamic::load(builtins.as_deref().unwrap_or(Path::new(BUILTINS)));
        let library = dynamic::load(libraries::path(COMPILER).as_deref().unwrap_or(Path::new(COMPILER)))?;
        // SAFETY: the types are those of nvrtc.h, which NVIDIA keeps stable within a major release.
        unsafe {
            Ok(Self {
                create: symbol(library, c"nvrtcCreateProgram")?,
                compile: symbol(library, c"nvrtcCompileProgram")?,
                log_size: symbol(library, c"nvrtcGetProgramLogSize")?,
                log: symbol(library, c"nvrtcGetProgramLog")?,
                code_size: symbol(library, c"nvrtcGetCUBINSize")?,
                code: symbol(library, c"nvrtcGetCUBIN")?,
                destroy: symbol(library, c"nvrtcDestroyProgram")?,
            })
        }
    }

    fn run(&self, source: &CStr, options: &[CString]) -> Result<Vec<u8>, String> {
        let options: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
        let count = c_int::try_from(options.len()).map_err(|error| error.to_string())?;
        let mut program = std::ptr::null_mut();
        // SAFETY: all pointers are of C strings that outlive the calls; the program is destroyed once, at the end, and each
        // buffer has the size that the compiler asked for.
        unsafe {
            let made = (self.create)(
                &raw mut program,
                source.as_ptr(),
                c"kernels.cu".as_ptr(),
                0,
                std::ptr::null(),
                std::ptr::null(),
            );
            if made != 0 {
                return Err(format!("NVRTC answered {made}"));
            }
            let read = |size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
                        get: unsafe extern "C" fn(Program, *mut c_char) -> c_int| {
                let mut bytes = 0;
                size(program, &raw mut bytes);
                let mut buffer = vec![0_u8; bytes];
                match get(program, buffer.as_mut_ptr().cast()) {
                    0 => Ok(buffer),
                    code => Err(format!("NVRTC answered {code}")),
                }
            };
            let result = match (self.compile)(program, count, options.as_ptr()) {
                0 => read(self.code_size, self.code),
                code => {
                    let log = read(self.log_size, self.log).unwrap_or_default();
                    Err(format!(
                        "NVRTC answered {code}: {}",
                        String::from_utf8_lossy(&log).trim_end_matches('\0').trim()
                    ))
                }
            };
            (self.destroy)(&raw mut program);
            result
        }
    }
}

/// Compiles CUDA C++ for a compute capability, with these macros, to machine code.
///
/// # Errors
/// The compiler's log, or why there is no compiler.
pub(crate) fn compile(source: &str, capability: (u32, u32), macros: &[(&str, i64)]) -> Result<Vec<u8>, String> {
    let mut options = vec![
        format!("--gpu-architecture=sm_{}{}", capability.0, capability.1),
        "--std=c++17".to_owned(),
        "--use_fast_math".to_owned(),
    ];
    options.extend(macros.iter().map(|(name, value)| format!("-D{name}={value}")));
    let c_string = |text: &str| CString::new(text).map_err(|error| error.to_string());
    let options = options.iter().map(|option| c_string(option)).collect::<Result<Vec<_>, _>>()?;
    Compiler::load()?.run(&c_string(source)?, &options)
}

/// The functions of cuda.h that launching takes.
#[derive(Debug)]
struct Driver {
    load: unsafe extern "C" fn(*mut *mut c_void, *const c_void) -> c_uint,
    function: unsafe extern "C" fn(*mut *mut c_void, *mut c_void, *const c_char) -> c_uint,
    launch: unsafe extern "C" fn(
        *mut c_void,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        *mut c_void,
        *mut *mut c_void,
        *mut *mut c_void,
    ) -> c_uint,
}

/// Machine code on one GPU. It is never unloaded: a GPU that works on it may be anywhere in it.
#[derive(Debug)]
pub(crate) struct Module {
    driver: Arc<Driver>,
    handle: *mut c_void,
}

/// A kernel of a module.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    driver: Arc<Driver>,
    handle: *mut c_void,
}

// SAFETY: the driver's handles may be used from any thread.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

impl Module {
    /// Loads machine code onto the GPU that is the calling thread's current one.
    ///
    /// # Errors
    /// What the driver answers.
    pub(crate) fn load(code: &[u8]) -> Result<Self, String> {
        let library: Library = dynamic::load(Path::new("libcuda.so.1"))?;
        // SAFETY: the types are those of cuda.h, which NVIDIA keeps stable.
        let driver = unsafe {
            Arc::new(Driver {
                load: symbol(library, c"cuModuleLoadData")?,
                function: symbol(library, c"cuModuleGetFunction")?,
                launch: symbol(library, c"cuLaunchKernel")?,
            })
        };
        let mut handle = std::ptr::null_mut();
        // SAFETY: the driver reads the image, whose headers say how long it is, and writes one pointer.
        match unsafe { (driver.load)(&raw mut handle, code.as_ptr().cast()) } {
            0 => Ok(Self { driver, handle }),
            answer => Err(format!("cuModuleLoadData answered {answer}")),
        }
    }

    /// A kernel by its name.
    ///
    /// # Errors
    /// What the driver answers.
    pub(crate) fn kernel(&self, name: &str) -> Result<Kernel, String> {
        let c_name = CString::new(name).map_err(|error| error.to_string())?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the module is loaded, the name is a C string, and the driver writes one pointer.
        match unsafe { (self.driver.function)(&raw mut handle, self.handle, c_name.as_ptr()) } {
            0 => Ok(Kernel { driver: Arc::clone(&self.driver), handle }),
            answer => Err(format!("cuModuleGetFunction answered {answer} for {name}")),
        }
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Argument {
    /// Memory of the GPU.
    Pointer(*mut c_void),
    /// A 32-bit integer.
    Int(i32),
    /// A 32-bit number.
    Float(f32),
}

impl Kernel {
    /// Gives the kernel to a stream of the GPU that is the calling thread's current one: `grid` blocks of `threads` threads.
    ///
    /// # Safety
    /// The arguments must be of the kernel's types, in its order, and their memory large enough for what it does with them
    /// until the stream has run it.
    ///
    /// # Errors
    /// What the driver answers.
    pub(crate) unsafe fn launch(
        &self,
        grid: (u32, u32),
        threads: u32,
        stream: *mut c_void,
        arguments: &mut [Argument],
    ) -> Result<(), String> {
        let mut pointers: Vec<*mut c_void> = arguments
            .iter_mut()
            .map(|argument| match argument {
                Argument::Pointer(value) => std::ptr::from_mut(value).cast(),
                Argument::Int(value) => std::ptr::from_mut(value).cast(),
                Argument::Float(value) => std::ptr::from_mut(value).cast(),
            })
            .collect();
        // SAFETY: the driver copies the arguments before it returns; the caller vouches for what they are.
        let answer = unsafe {
            (self.driver.launch)(
                self.handle,
                grid.0,
                grid.1,
                1,
                threads,
                1,
                1,
                0,
                stream,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        match answer {
            0 => Ok(()),
            2 => Err("CUDA error: out of memory (cuLaunchKernel)".to_owned()),
            // As libtorch words what ends the use of a device, so that it is told from a batch that failed.
            answer => Err(format!("CUDA error: cuLaunchKernel answered {answer}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_compiler_the_reason_is_named() {
        // Where there is one, a program that is none is refused with the compiler's words.
        let error = compile("this is no program", (9, 0), &[("HEAD", 32)]).expect_err("nothing to compile");
        assert!(error.contains("libnvrtc") || error.contains("NVRTC answered"), "{error}");
    }
}
