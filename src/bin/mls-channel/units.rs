//! Sizes and times as people write them.

use std::time::Duration;

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const TIMES: [(&str, u64); 3] = [("h", 3600), ("m", 60), ("s", 1)];

/// A number of bytes, such as `64MiB` or `1000`.
pub(crate) fn size(text: &str) -> Result<u64, &'static str> {
    number(text, &SIZES).ok_or("write a size like 1GiB, 64MiB, 16KiB or 1000")
}

/// A time, such as `2m` or `30`.
pub(crate) fn time(text: &str) -> Result<Duration, &'static str> {
    let seconds = number(text, &TIMES).ok_or("write a time like 90s, 2m or 1h")?;
    Ok(Duration::from_secs(seconds))
}

fn number(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = units
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
        .unwrap_or((text, 1));
    number.trim_end().parse::<u64>().ok().filter(|number| *number > 0)?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read() {
        for (text, bytes) in [("1", 1), ("7B", 7), ("16KiB", 16384), ("2 MiB", 2 << 20)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "-1", "1.5MiB", "MiB", "1TB", "99999999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
        for (text, seconds) in [("30", 30), ("90s", 90), ("2m", 120), ("1h", 3600)] {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert!(time("soon").is_err());
    }
}
