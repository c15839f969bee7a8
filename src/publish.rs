use std::io::{self, Write};
use std::path::PathBuf;

use canet_cpu::CpuBackend;
use canet_model::Model;
use canet_model::checkpoint::ModelDirectory;
use canet_store::{PublishError, Published, S3Address, S3Model, VersionNumber};

use super::Failure;
use super::exit::say;
use super::model_address::s3_settings;

/// Uploads a version of a model to a bucket, from which other commands read it as --model s3://BUCKET/PREFIX
///
/// Readers see the whole version or none. A version that the bucket holds already is never replaced.
#[derive(Debug, clap::Args)]
pub(crate) struct PublishArgs {
    /// Directory of the model, with its versions
    #[arg(value_name = "DIR")]
    model: PathBuf,
    /// Where the bucket has the model
    #[arg(value_name = "s3://BUCKET/PREFIX")]
    to: S3Address,
    /// Version to upload [default: the highest]
    #[arg(long, env = "CANET_VERSION", value_name = "N")]
    version: Option<u64>,
    /// Its number in the bucket: a number, or `next` for the one after the highest there [default: its number in the directory]
    #[arg(long = "as", env = "CANET_AS", value_name = "N|next", value_parser = target)]
    target: Option<VersionNumber>,
}

fn target(text: &str) -> Result<VersionNumber, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(VersionNumber::Number(number)),
        _ if text == "next" => Ok(VersionNumber::Next),
        _ => Err("it must be a number from 1, or next".to_owned()),
    }
}

/// Checks the version as a server does, uploads it, and prints its address.
pub(crate) fn run(args: PublishArgs) -> Result<(), Failure> {
    let directory = ModelDirectory::open(&args.model).map_err(|error| Failure::checkpoint(&error))?;
    let model = Model::open(&directory, args.version, &CpuBackend::single_threaded());
    let version = model.map_err(|error| Failure::opening(&error))?.version();
    let store = S3Model::new(args.to, &s3_settings()).map_err(Failure::usage)?;
    let target = args.target.unwrap_or(VersionNumber::Number(version));
    let Published { address, is_new, .. } =
        store.publish(&directory.path().join(version.to_string()), target).map_err(failure)?;
    if !is_new {
        say("the bucket holds this version already");
    }
    writeln!(io::stdout(), "{address}").map_err(Failure::output)
}

fn failure(error: PublishError) -> Failure {
    match error {
        PublishError::File { .. } => Failure::Io(error.to_string()),
        PublishError::Taken { .. } | PublishError::Uploading { .. } | PublishError::Exhausted { .. } => {
            Failure::data(error)
        }
        PublishError::Store { .. } => Failure::unavailable(error),
    }
}
