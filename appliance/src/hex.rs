//! Bytes as lower-case hexadecimal, and fingerprints in groups for people to compare.

/// Lower-case hexadecimal digits.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for four in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(four), 16).expect("four bits are one digit"));
        }
    }
    text
}

/// Reads hexadecimal digits of either case, ignoring blanks and colons; `None` when anything else is in the text.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace() && *c != ':')
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    Some(pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// A fingerprint in groups of four digits.
pub fn grouped(bytes: &[u8]) -> String {
    bytes.chunks(2).map(encode).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_survives_the_round_trip_in_every_form() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&bytes)).unwrap(), bytes);
        assert_eq!(decode(&grouped(&bytes)).unwrap(), bytes);
        assert_eq!(decode("AB:cd").unwrap(), [0xab, 0xcd]);
        assert_eq!(grouped(&[1, 0xff, 3]), "01ff 03");
        assert!(decode("abc").is_none() && decode("zz").is_none());
    }
}
