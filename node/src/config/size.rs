//! Sizes as people write them: `512m`, `2g`, `16GiB`, `1073741824`. Units are binary.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no size: write bytes, or a number with k, m, g or t, as in 512m or 16GiB");
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let power = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "ki" | "kib" => 1,
            "m" | "mb" | "mi" | "mib" => 2,
            "g" | "gb" | "gi" | "gib" => 3,
            "t" | "tb" | "ti" | "tib" => 4,
            _ => return Err(wrong()),
        };
        let factor = 1u64 << (10 * power);
        let bytes = match number.parse::<u64>() {
            Ok(whole) => whole.checked_mul(factor).ok_or_else(wrong)?,
            Err(_) => {
                let bytes = number.parse::<f64>().map_err(|_| wrong())? * factor as f64;
                if power == 0 || bytes >= u64::MAX as f64 {
                    return Err(wrong());
                }
                bytes as u64
            }
        };
        if bytes == 0 { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"2g\" or a number of bytes")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes)
                    .ok()
                    .filter(|bytes| *bytes > 0)
                    .map(Size)
                    .ok_or_else(|| E::custom("a size above 0"))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let read = [
            ("512m", 512 << 20),
            ("2g", 2 << 30),
            ("16GiB", 16 << 30),
            ("1.5g", 3 << 29),
            ("4096", 4096),
            (" 1 KiB ", 1024),
            ("1t", 1 << 40),
        ];
        for (text, bytes) in read {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "g", "0", "-1", "1x", "1.5", "99999999999t", "1e3m", "1..2g", "NaNg", "infg"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_size_or_an_error(text in "\\PC{0,24}") {
            let _ = text.parse::<Size>();
        }

        #[test]
        fn whole_sizes_read_back(number in 1u64..1_000_000, unit in 0usize..5) {
            let names = ["", "k", "m", "g", "t"];
            prop_assert_eq!(format!("{number}{}", names[unit]).parse(), Ok(Size(number << (10 * unit))));
        }
    }
}
