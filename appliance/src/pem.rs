//! Certificates as PEM text (RFC 7468).

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const LINE_CHARS: usize = 64;

/// A certificate in DER as PEM.
pub(crate) fn certificate(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let digits: Vec<char> = der.chunks(3).flat_map(four).collect();
    for line in digits.chunks(LINE_CHARS) {
        text.extend(line);
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

/// Three bytes, or fewer at the end, as four digits of base 64 (RFC 4648, 4).
fn four(bytes: &[u8]) -> [char; 4] {
    let byte = |at: usize| u32::from(bytes.get(at).copied().unwrap_or(0));
    let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
    std::array::from_fn(|at| {
        let six = usize::try_from(bits >> (18 - 6 * at) & 63).expect("six bits are below 64");
        if at > bytes.len() { '=' } else { char::from(DIGITS[six]) }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ntls::certificate::{Certificate, Wanted, self_signed};

    use super::*;

    /// RFC 4648, 10.
    #[test]
    fn digits_are_those_of_the_standard() {
        for (bytes, digits) in [("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("\u{3ff}", "z78=")] {
            assert_eq!(four(bytes.as_bytes()).iter().collect::<String>(), digits);
        }
    }

    #[test]
    fn certificates_of_every_length_read_back() {
        for length in 1..6 {
            let name = "x".repeat(length);
            let made = self_signed(&Wanted { name: &name, hosts: &[], now_ms: 0, days: 1 }).unwrap();
            let read =
                |pem: &str| Certificate::all_from_pem(pem.as_bytes(), "test").unwrap()[0].der().to_vec();
            let der = read(&made.certificate_pem);
            assert_eq!(read(&certificate(&der)), der);
        }
    }
}
