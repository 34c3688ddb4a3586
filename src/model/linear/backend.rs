//! Which of the processor's instructions multiply matrices: the widest that it has, or those that `PEARL_BACKEND` names.
//! It knows nothing of matrices.

use std::sync::OnceLock;

use crate::error::{Error, Result};

/// From the plainest on; each has what those before it have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// What every processor has.
    Plain,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512F.
    Avx512,
    /// The same with products of bf16 numbers that add up in f32.
    Avx512Bf16,
    /// The same with tiles of bf16 numbers; f32 numbers are split into two.
    Amx,
}

const VARIABLE: &str = "PEARL_BACKEND";

impl Backend {
    pub const ALL: [Backend; 5] =
        [Backend::Plain, Backend::Avx2, Backend::Avx512, Backend::Avx512Bf16, Backend::Amx];

    pub fn name(self) -> &'static str {
        match self {
            Backend::Plain => "plain",
            Backend::Avx2 => "avx2",
            Backend::Avx512 => "avx512",
            Backend::Avx512Bf16 => "avx512bf16",
            Backend::Amx => "amx",
        }
    }

    /// Whether this processor can run it.
    pub fn runs(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = avx2 && is_x86_feature_detected!("avx512f");
            let avx512bf16 = avx512 && is_x86_feature_detected!("avx512bf16");
            match self {
                Backend::Plain => true,
                Backend::Avx2 => avx2,
                Backend::Avx512 => avx512,
                Backend::Avx512Bf16 => avx512bf16,
                Backend::Amx => avx512bf16 && super::amx::runs(),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Backend::Plain
        }
    }

    /// The one that is used: what `PEARL_BACKEND` names, or else the best that runs here.
    ///
    /// # Errors
    /// A name that is not known, or a backend that this processor can't run.
    pub fn chosen() -> Result<Backend> {
        let best = Backend::ALL.into_iter().rfind(|backend| backend.runs()).unwrap_or(Backend::Plain);
        let Some(name) = std::env::var_os(VARIABLE) else { return Ok(best) };
        let named = Backend::ALL.into_iter().find(|backend| name.to_str() == Some(backend.name()));
        named.filter(|backend| backend.runs()).ok_or_else(|| {
            let found = match named {
                Some(_) => format!("{}, which this processor lacks", name.display()),
                None => format!("{}, which is none", name.display()),
            };
            let runs: Vec<&str> =
                Backend::ALL.into_iter().filter(|backend| backend.runs()).map(Backend::name).collect();
            Error::input(VARIABLE, found, format!("one of {}, or nothing", runs.join(", ")))
        })
    }

    /// Which one is used and why, in a line.
    ///
    /// # Errors
    /// As [`Backend::chosen`].
    pub fn explained() -> Result<String> {
        let backend = Backend::chosen()?;
        let why = match std::env::var_os(VARIABLE) {
            Some(_) => format!("as {VARIABLE} says"),
            None => "the widest that this processor has".into(),
        };
        let how = match backend {
            Backend::Amx => "; of f32 numbers sixteen bits are multiplied (avx512: all)",
            _ => "",
        };
        Ok(format!("{}, {why}{how}", backend.name()))
    }

    /// As [`Backend::chosen`], found out once; what is no backend was refused when the model was opened.
    pub(in crate::model) fn current() -> Backend {
        static CURRENT: OnceLock<Backend> = OnceLock::new();
        *CURRENT.get_or_init(|| Backend::chosen().unwrap_or(Backend::Plain))
    }
}
