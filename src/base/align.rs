//! Rounding to block boundaries. Always up: rounding to nearest loses the tail.

/// The smallest multiple of `unit` that is not less than `value`; both in the same unit.
///
/// # Panics
/// When `unit` is zero or the result does not fit 64 bits.
pub const fn up(value: u64, unit: u64) -> u64 {
    match value.checked_next_multiple_of(unit) {
        Some(result) => result,
        None => panic!("aligned value exceeds 64 bits"),
    }
}

/// How many whole units hold `value`.
pub const fn units(value: u64, unit: u64) -> u64 {
    value.div_ceil(unit)
}

/// Bytes that are missing from `value` to the next multiple of `unit`.
pub const fn padding(value: u64, unit: u64) -> u64 {
    up(value, unit) - value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_up_only() {
        assert_eq!((up(0, 4096), up(1, 4096), up(4096, 4096), up(4097, 4096)), (0, 4096, 4096, 8192));
        assert_eq!((padding(1, 512), padding(512, 512)), (511, 0));
        assert_eq!((units(0, 8), units(9, 8)), (0, 2));
    }
}
