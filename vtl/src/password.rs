//! Where a password comes from: the option, the environment, the terminal, or standard input.

use std::io::{BufRead, IsTerminal};

use zeroize::Zeroizing;

use crate::answer::Failure;
use crate::arguments::Secret;

/// Environment variable of the Crypto Officer's password.
const VARIABLE: &str = "VTL_PASSWORD";
/// Longest password that is read.
const PASSWORD_BYTES_MAX: u64 = 1024;

/// The password, from the option, else [`VARIABLE`], else asked without echo on a terminal, else one line of standard
/// input. Errs when there is none.
pub(crate) fn obtain(secret: Secret, whose: &str) -> Result<Zeroizing<String>, Failure> {
    if let Some(password) = secret.password {
        return some(password);
    }
    if let Some(password) = std::env::var_os(VARIABLE).and_then(|value| value.into_string().ok()) {
        return some(Zeroizing::new(password));
    }
    if std::io::stdin().is_terminal() {
        let asked = rpassword::prompt_password(format!("Crypto Officer's password of {whose}: "));
        return some(Zeroizing::new(asked.map_err(|error| missing(&error.to_string()))?));
    }
    some(first_line(std::io::stdin().lock())?)
}

fn first_line(input: impl BufRead) -> Result<Zeroizing<String>, Failure> {
    let mut line =
        Zeroizing::new(String::with_capacity(1 + usize::try_from(PASSWORD_BYTES_MAX).unwrap_or(1024)));
    input.take(PASSWORD_BYTES_MAX).read_line(&mut line).map_err(|error| missing(&error.to_string()))?;
    Ok(Zeroizing::new(line.trim_end_matches(['\n', '\r']).to_owned()))
}

fn some(password: Zeroizing<String>) -> Result<Zeroizing<String>, Failure> {
    if password.is_empty() { Err(missing("an empty one")) } else { Ok(password) }
}

fn missing(found: &str) -> Failure {
    Failure::new("a password", found, format!("give -password, set {VARIABLE}, or type it on a terminal"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_input_is_the_password() {
        assert_eq!(first_line(&b"se cret\r\nrest"[..]).unwrap().as_str(), "se cret");
        assert_eq!(first_line(&b"secret"[..]).unwrap().as_str(), "secret");
    }

    #[test]
    fn no_password_is_a_failure_that_says_where_it_can_come_from() {
        let failure = some(first_line(&b""[..]).unwrap()).unwrap_err();
        assert!(failure.0.contains("give -password, set VTL_PASSWORD"), "{failure}");
    }
}
