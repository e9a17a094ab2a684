//! Functions of real numbers with the same bits on every machine.
//!
//! Those of `f64` are the C library's, or whatever the compiler finds out beforehand, and may differ
//! in the last place; that is enough for another choice of path, and a run of the simulator that is
//! another one from there on. These are computed here, by sums and products, which IEEE 754 fixes.
//! Square roots, rounding and the four basic operations need no such care.

/// The natural logarithm.
pub fn ln(x: f64) -> f64 {
    libm::log(x)
}

/// The decimal logarithm.
pub fn log10(x: f64) -> f64 {
    libm::log10(x)
}

/// `e` to the power of `x`.
pub fn exp(x: f64) -> f64 {
    libm::exp(x)
}

/// `x` to the power of `y`.
pub fn pow(x: f64, y: f64) -> f64 {
    libm::pow(x, y)
}

#[cfg(test)]
mod tests {
    use std::f64::consts::E;

    use super::*;

    /// The bits as they were once, from all binades that matter: another machine must find the same.
    #[test]
    fn the_bits_are_the_same_everywhere() {
        let mut digest = 0xcbf2_9ce4_8422_2325_u64;
        for step in 1..20_000 {
            let x = f64::from(step) / 997.0;
            let near_one = pow(1.0 - x / 21.0, 1_000.0);
            for value in [ln(x), log10(x * x), exp(x - 10.0), pow(x, 1.0 / x), near_one] {
                digest = (digest ^ value.to_bits()).wrapping_mul(0x0100_0000_01b3);
            }
        }
        assert_eq!(digest, 0x6571_b313_b617_1f66, "{digest:#x}");
    }

    #[test]
    fn they_are_what_they_are_called() {
        assert_eq!([ln(1.0), log10(1_000.0), exp(0.0), pow(2.0, 10.0)], [0.0, 3.0, 1.0, 1_024.0]);
        assert!((ln(exp(1.5)) - 1.5).abs() < 1e-15 && (exp(1.0) - E).abs() < 1e-15);
        assert_eq!(ln(0.0), f64::NEG_INFINITY);
    }
}
