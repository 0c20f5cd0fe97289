//! Which instruction sets there are, which of them this processor has, and what layout their kernels read.

use std::fmt;

/// The arithmetic of matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floats: the reference.
    Fp32,
    /// bf16 operands, 32-bit sums.
    Bf16,
    /// 8-bit operands, exact 32-bit sums.
    Int8,
}

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Plain Rust: runs everywhere, and is what the others are tested against.
    Portable,
    /// AVX2 and FMA (Haswell, Zen and later).
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI (Ice Lake, Zen 4 and later).
    Avx512,
    /// The same and BF16 (Cooper Lake, Sapphire Rapids, Zen 4 and later).
    Avx512Bf16,
}

impl Isa {
    /// All of them, the plainest first.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16];

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512dq")
                    && std::arch::is_x86_feature_detected!("avx512vl")
                    && std::arch::is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => Self::Avx512.is_available() && std::arch::is_x86_feature_detected!("avx512bf16"),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The best that this processor has.
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Self::Portable)
    }

    /// Whether bf16 products are faster than those in fp32.
    pub fn has_bf16(self) -> bool {
        self == Self::Avx512Bf16
    }

    /// Whether there is one instruction for the product of four bytes, summed in 32 bits.
    pub fn has_vnni(self) -> bool {
        matches!(self, Self::Avx512 | Self::Avx512Bf16)
    }

    /// The name that people and configurations use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512-vnni",
            Self::Avx512Bf16 => "avx512-bf16",
        }
    }

    /// The set of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// How weights are packed for it.
    pub(crate) fn layout(self, precision: Precision) -> Layout {
        let per_word = match precision {
            Precision::Fp32 => 1,
            Precision::Bf16 => 2,
            Precision::Int8 => 4,
        };
        let columns = if self.has_vnni() { 64 } else { 16 };
        Layout { precision, columns, per_word }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How weights are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) precision: Precision,
    /// Columns of a panel.
    pub(crate) columns: usize,
    /// Values in a word.
    pub(crate) per_word: usize,
}
