use std::io::{self, Write};
use std::path::PathBuf;

use canet_cpu::CpuBackend;
use canet_model::WidthRule;
use canet_model::import::Import;

use super::Failure;

/// Imports a checkpoint of the authors' program as the next version of a model.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// The state dict that torch.save wrote, or a safetensors file of the same names; no code in it is run
    #[arg(long, env = "CANET_STATE_DICT", value_name = "FILE")]
    state_dict: PathBuf,
    /// The args.json that the authors' program wrote beside it
    #[arg(long, env = "CANET_ARGS", value_name = "FILE")]
    args: PathBuf,
    /// Directory of the model, as models/NAME
    #[arg(long, env = "CANET_OUT", value_name = "DIR")]
    out: PathBuf,
    /// External item ids, one a line in dense order [default: the dense ids]
    #[arg(long, env = "CANET_ITEMS", value_name = "FILE")]
    items: Option<PathBuf>,
    /// Width that scales a narrow slice's attention; the authors' code trains with full
    #[arg(long, env = "CANET_ATTENTION_SCALE", default_value = "full")]
    attention_scale: WidthRule,
    /// Width that sizes a narrow slice's feed-forward networks; the authors' code trains with full
    #[arg(long, env = "CANET_FFN_INNER", default_value = "full")]
    ffn_inner: WidthRule,
}

/// Reads, checks and writes the model, and prints the path of the version.
pub(crate) fn run(args: ImportArgs) -> Result<(), Failure> {
    let import = Import {
        state_dict: &args.state_dict,
        args: &args.args,
        items: args.items.as_deref(),
        attention_scale: args.attention_scale,
        ffn_inner: args.ffn_inner,
    };
    let checkpoint = import
        .read(&CpuBackend::single_threaded())
        .map_err(Failure::data)?
        .write(&args.out)
        .map_err(|error| Failure::writing(&error))?;
    let path = args.out.join(checkpoint.version.to_string());
    let (routes, items) = (checkpoint.space.len(), checkpoint.catalogue.len());
    writeln!(io::stdout(), "{}: {routes} routes over {items} items", path.display()).map_err(Failure::output)
}
