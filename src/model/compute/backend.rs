//! The compute backends: instruction sets of the processor, and devices. The best available one is selected, or the one that
//! `PEARL_BACKEND` names.

use std::sync::OnceLock;

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};

/// A compute backend. Those of the processor are ordered: each has the instructions of the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// Candle's operations on the CPU: the code path of a device, for tests on machines without one. Never selected by default.
    Candle,
    /// Portable code for any processor.
    Plain,
    /// aarch64 with NEON.
    Neon,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512F.
    Avx512,
    /// AVX-512F with bf16 dot products that accumulate in f32.
    Avx512Bf16,
    /// AVX-512 with AMX tiles of bf16. An f32 matrix is split into two bf16 parts.
    Amx,
    /// Candle's operations on the first NVIDIA device.
    Cuda,
}

const VARIABLE: &str = "PEARL_BACKEND";

impl Backend {
    /// Every backend, in order.
    pub const ALL: [Backend; 8] = [
        Backend::Candle,
        Backend::Plain,
        Backend::Neon,
        Backend::Avx2,
        Backend::Avx512,
        Backend::Avx512Bf16,
        Backend::Amx,
        Backend::Cuda,
    ];

    /// Its name in `PEARL_BACKEND`.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Candle => "candle",
            Backend::Plain => "plain",
            Backend::Neon => "neon",
            Backend::Avx2 => "avx2",
            Backend::Avx512 => "avx512",
            Backend::Avx512Bf16 => "avx512bf16",
            Backend::Amx => "amx",
            Backend::Cuda => "cuda",
        }
    }

    /// Whether it is available in this build and on this machine.
    pub fn is_available(self) -> bool {
        if self == Backend::Cuda {
            return cuda().is_ok();
        }
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = avx2 && is_x86_feature_detected!("avx512f");
            let avx512bf16 = avx512 && is_x86_feature_detected!("avx512bf16");
            match self {
                Backend::Avx2 => avx2,
                Backend::Avx512 => avx512,
                Backend::Avx512Bf16 => avx512bf16,
                Backend::Amx => avx512bf16 && amx_runs(),
                _ => self <= Backend::Plain,
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self <= if cfg!(target_arch = "aarch64") { Backend::Neon } else { Backend::Plain }
        }
    }

    /// Whether a product with a bf16 matrix rounds its input to bf16.
    pub fn rounds_to_bf16(self) -> bool {
        matches!(self, Backend::Candle | Backend::Avx512Bf16 | Backend::Amx | Backend::Cuda)
    }

    /// The backend in use: the one that `PEARL_BACKEND` names, or the best available.
    ///
    /// # Errors
    /// An unknown name, or a backend that isn't available here.
    pub fn chosen() -> Result<Backend> {
        let mut best_first = Backend::ALL.into_iter().rev();
        let Some(name) = std::env::var_os(VARIABLE) else {
            return Ok(best_first.find(|backend| backend.is_available()).unwrap_or(Backend::Plain));
        };
        let named = best_first.find(|backend| name.to_str() == Some(backend.name()));
        named.filter(|backend| backend.is_available()).ok_or_else(|| {
            let why = match (named, cuda()) {
                (Some(Backend::Cuda), Err(why)) => format!("but {why}"),
                (Some(_), _) => "which this processor doesn't support".into(),
                (None, _) => "an unknown backend".into(),
            };
            let found = format!("{}, {why}", name.display());
            let available: Vec<&str> = Backend::ALL
                .into_iter()
                .filter(|backend| backend.is_available())
                .map(Backend::name)
                .collect();
            Error::input(VARIABLE, found, format!("one of {}, or unset", available.join(", ")))
        })
    }

    /// The backend in use and the reason, in one line.
    ///
    /// # Errors
    /// As [`Backend::chosen`].
    pub fn explained() -> Result<String> {
        let backend = Backend::chosen()?;
        let why = match (std::env::var_os(VARIABLE), backend) {
            (Some(_), _) => format!("as {VARIABLE} says"),
            (None, Backend::Cuda) => "the first NVIDIA device".into(),
            (None, _) if cfg!(feature = "cuda") => {
                let none = cuda().err().map(|why| format!(" ({why})")).unwrap_or_default();
                format!("the best of this processor{none}")
            }
            (None, _) => "the best of this processor".into(),
        };
        let how = match backend {
            Backend::Amx => "; f32 products keep sixteen bits of each factor (avx512: all)",
            Backend::Candle | Backend::Cuda => "; the inputs of bf16 matrices are rounded to bf16",
            _ => "",
        };
        Ok(format!("{}, {why}{how}", backend.name()))
    }

    /// The backend of the CPU kernels: [`Backend::chosen`], or the processor's best if that is a device. Detected once; an invalid
    /// `PEARL_BACKEND` has been refused when the model was opened.
    pub(crate) fn current() -> Backend {
        static CURRENT: OnceLock<Backend> = OnceLock::new();
        let is_cpu = |backend: &Backend| !matches!(backend, Backend::Candle | Backend::Cuda);
        *CURRENT.get_or_init(|| {
            let best = || Backend::ALL.into_iter().filter(is_cpu).rfind(|backend| backend.is_available());
            Backend::chosen().ok().filter(is_cpu).or_else(best).unwrap_or(Backend::Plain)
        })
    }
}

/// The device on which candle's operations run; none if the CPU kernels are used.
pub(crate) fn candle_device() -> Option<&'static Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    let found = || match Backend::chosen().ok()? {
        Backend::Candle => Some(Device::Cpu),
        Backend::Cuda => cuda().ok().cloned(),
        _ => None,
    };
    DEVICE.get_or_init(found).as_ref()
}

/// Whether operations on a tensor use candle, which runs on every device. The CPU kernels run on the CPU only.
pub(crate) fn uses_candle(x: &Tensor) -> bool {
    !x.device().is_cpu() || candle_device().is_some_and(Device::is_cpu)
}

/// Moves a weight to the device of the forward pass. A trainable tensor stays on the CPU.
pub(crate) fn to_compute_device(tensor: &Tensor) -> candle_core::Result<Tensor> {
    match candle_device() {
        Some(device) if !tensor.track_op() => tensor.to_device(device),
        _ => Ok(tensor.clone()),
    }
}

/// The first NVIDIA device, or the reason why there is none.
#[cfg(feature = "cuda")]
fn cuda() -> std::result::Result<&'static Device, &'static str> {
    static FOUND: OnceLock<std::result::Result<Device, String>> = OnceLock::new();
    let find = || {
        // Keeps the input of a quantised product in f32, as the CPU kernels do.
        candle_core::quantized::cuda::set_force_dmmv(true);
        // One stream for all threads: with a stream per thread, a pass wouldn't wait for the work of the others.
        Device::new_cuda_with_stream(0).map_err(|error| {
            let error = error.to_string();
            format!("no device is available: {}", error.lines().next().unwrap_or_default())
        })
    };
    FOUND.get_or_init(find).as_ref().map_err(String::as_str)
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> std::result::Result<&'static Device, &'static str> {
    Err("this program was built without it (cargo build --features cuda)")
}

/// Whether the processor has AMX tiles with bf16 products, and the system lets this process use them.
#[cfg(target_arch = "x86_64")]
fn amx_runs() -> bool {
    use std::arch::x86_64::__cpuid_count;

    static RUNS: OnceLock<bool> = OnceLock::new();
    *RUNS.get_or_init(|| {
        const AMX_TILE_AND_BF16: u32 = (1 << 22) | (1 << 24);
        let has_leaf_7 = __cpuid_count(0, 0).eax >= 7;
        has_leaf_7
            && __cpuid_count(7, 0).edx & AMX_TILE_AND_BF16 == AMX_TILE_AND_BF16
            && request_tile_permission()
    })
}

/// Asks the kernel to save tile registers for this process (Linux, `Documentation/arch/x86/xstate.rst`).
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn request_tile_permission() -> bool {
    const REQUEST_PERMISSION: libc::c_int = 0x1023;
    const TILE_DATA: libc::c_int = 18;
    // SAFETY: the call reads its two numbers and writes nothing.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 }
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn request_tile_permission() -> bool {
    false
}
