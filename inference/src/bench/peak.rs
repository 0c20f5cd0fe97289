//! What the cores could do: the denominator of a share of peak.

use std::thread;
use std::time::Duration;

use undertone_kernels::{Isa, Precision, peak};

use crate::ModelInfo;

/// Long enough for a core to reach its clock rate.
const TIME: Duration = Duration::from_millis(300);

/// The most that `workers` cores reach at once in products of the model's precision with its instruction set, in 10⁹
/// operations a second: multiplications in registers alone, without a load, measured now. `None` where the model does not
/// run on our CPU kernels.
pub fn peak_gflops(model: &ModelInfo, workers: usize) -> Option<f64> {
    let isa = match model.kernels.as_str() {
        "libtorch" => Isa::best(),
        name => Isa::from_name(name)?,
    };
    let precision = match model.precision.as_str() {
        "fp32" => Precision::Fp32,
        "bf16" => Precision::Bf16,
        "int8" => Precision::Int8,
        _ => return None,
    };
    let total: f64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers.max(1)).map(|_| scope.spawn(move || peak(isa, precision, TIME))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
    });
    Some(total / 1e9)
}
