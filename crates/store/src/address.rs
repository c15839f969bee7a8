use std::fmt;
use std::str::FromStr;

use object_store::path::Path;

/// A place in a bucket: `s3://BUCKET/PREFIX`, or `s3://BUCKET` for all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Address {
    bucket: String,
    prefix: Path,
}

/// A text is no address of a place in a bucket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}: {reason}; give it as s3://BUCKET/PREFIX, for example s3://models/ml-100k")]
pub struct AddressError {
    text: String,
    reason: String,
}

impl S3Address {
    /// Whether a text is meant as an address.
    pub fn is_meant_by(text: &str) -> bool {
        text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("s3://"))
    }

    /// The last part of the prefix, or the bucket if there is none.
    pub fn name(&self) -> &str {
        self.prefix.as_ref().rsplit('/').find(|part| !part.is_empty()).unwrap_or(&self.bucket)
    }

    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    pub(crate) fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// The path of an object below the prefix.
    pub(crate) fn path(&self, key: &str) -> Path {
        key.split('/').fold(self.prefix.clone(), Path::join)
    }

    /// The key below the prefix of an object at a path.
    pub(crate) fn key<'a>(&self, path: &'a Path) -> Option<&'a str> {
        match self.prefix.as_ref() {
            "" => Some(path.as_ref()),
            prefix => path.as_ref().strip_prefix(prefix)?.strip_prefix('/'),
        }
    }
}

impl FromStr for S3Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<S3Address, AddressError> {
        let invalid = |reason: String| AddressError { text: text.to_owned(), reason };
        let rest = if S3Address::is_meant_by(text) { text.get(5..) } else { None };
        let rest = rest.ok_or_else(|| invalid("not an address of S3".to_owned()))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || ".-_".contains(letter);
        if bucket.is_empty() || !bucket.chars().all(is_allowed) {
            return Err(invalid(format!("{bucket:?} is no name of a bucket")));
        }
        let prefix = Path::parse(prefix).map_err(|error| invalid(error.to_string()))?;
        Ok(S3Address { bucket: bucket.to_owned(), prefix })
    }
}

impl fmt::Display for S3Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix.as_ref() {
            "" => write!(f, "s3://{}", self.bucket),
            prefix => write!(f, "s3://{}/{prefix}", self.bucket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_bucket_prefix_and_model() {
        for (text, bucket, prefix, name, shown) in [
            ("s3://models/ml-100k", "models", "ml-100k", "ml-100k", "s3://models/ml-100k"),
            ("S3://models/shop/eu/", "models", "shop/eu", "eu", "s3://models/shop/eu"),
            ("s3://models", "models", "", "models", "s3://models"),
            ("s3://models/", "models", "", "models", "s3://models"),
        ] {
            let address: S3Address = text.parse().unwrap();
            assert_eq!((address.bucket(), address.prefix().as_ref(), address.name()), (bucket, prefix, name), "{text}");
            assert_eq!(address.to_string(), shown);
            let path = address.path("3/canet.json");
            assert_eq!(address.key(&path), Some("3/canet.json"));
        }
        let address: S3Address = "s3://models/ml".parse().unwrap();
        assert_eq!(address.key(&Path::from("ml-100k/3/canet.json")), None);
    }

    #[test]
    fn another_text_is_refused_with_the_form() {
        for text in
            ["s3:/models", "models/ml", "s3://", "s3:///ml", "s3://a b/ml", "s3://b/a//c", "s3://b/../c", "gs://b/c"]
        {
            let error = text.parse::<S3Address>().unwrap_err().to_string();
            assert!(error.contains("give it as s3://BUCKET/PREFIX"), "{error}");
        }
    }
}
