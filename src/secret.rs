use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::Failure;

/// A token or key from a flag or a file. Neither logs nor errors show it.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl Secret {
    /// The secret itself.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// The secrets in a file, at least one, each on a line of its own. Blank lines are ignored.
    ///
    /// # Errors
    /// [`Failure`] that names the file and the line.
    pub(crate) fn read_all(path: &Path) -> Result<Vec<Secret>, Failure> {
        let name = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
        let secrets: Vec<Secret> = lines
            .map(|(index, line)| {
                line.parse().map_err(|fault| Failure::Usage(format!("{name}, line {}: {fault}", index + 1)))
            })
            .collect::<Result<_, _>>()?;
        if secrets.is_empty() {
            return Err(Failure::Usage(format!(
                "{name}: the file holds no key or token; write each on a line of its own"
            )));
        }
        Ok(secrets)
    }

    /// The one secret in a file.
    ///
    /// # Errors
    /// [`Failure`] that names the file.
    pub(crate) fn read_one(path: &Path) -> Result<Secret, Failure> {
        match Secret::read_all(path)?.as_slice() {
            [secret] => Ok(secret.clone()),
            secrets => {
                Err(Failure::Usage(format!("{}: the file holds {} lines, not one", path.display(), secrets.len())))
            }
        }
    }
}

impl FromStr for Secret {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Secret, &'static str> {
        if text.is_empty() {
            return Err("it is empty");
        }
        // A client could not send any other text in a header, so the secret would never match.
        if text.trim() != text || !text.chars().all(|c| matches!(c, ' '..='~')) {
            return Err("it may hold printable ASCII characters only, and no space or line break at its start or end");
        }
        Ok(Secret(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("set")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_no_header_can_carry_is_refused() {
        for text in ["", "key\n", " key", "key ", "k\u{e9}y", "a\tb", "\u{1b}[0m"] {
            assert!(text.parse::<Secret>().is_err(), "{text:?}");
        }
        for text in ["key", "open sesame", "a=b/c+d,e~!"] {
            assert_eq!(text.parse::<Secret>().unwrap().reveal(), text);
        }
    }

    #[test]
    fn a_file_holds_a_secret_a_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Secret::read_all(&path).map(|keys| keys.iter().map(|key| key.reveal().to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(read("old\nnew\n").unwrap(), ["old", "new"]);
        assert_eq!(read("old\r\n\r\nnew").unwrap(), ["old", "new"]);
        assert!(read("old\nnew \n").unwrap_err().to_string().contains("keys, line 2: it may hold printable ASCII"));
        assert!(read("\n").unwrap_err().to_string().contains("holds no key or token"));
        assert!(Secret::read_one(&path).is_err());
        std::fs::write(&path, "token\n").unwrap();
        assert_eq!(Secret::read_one(&path).unwrap().reveal(), "token");
        assert!(Secret::read_all(&directory.path().join("none")).unwrap_err().to_string().contains("none: "));
    }
}
