use std::io::{self, Write};
use std::path::{Path, PathBuf};

use canet_cpu::CpuBackend;
use canet_data::OrderedDataset;
use canet_model::WidthRule;
use canet_model::checkpoint::{CheckpointDraft, DataRecord};
use canet_model::import::{Import, RecBoleImport};

use super::Failure;
use super::interactions::FormatArgs;
use super::model_address::new_version_directory;

/// Imports a checkpoint of the authors' program, or a SASRec of RecBole, as the next version of a model.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("source").args(["state_dict", "recbole"]).required(true)))]
pub(crate) struct ImportArgs {
    /// The authors' state dict that torch.save wrote, or a safetensors file of the same names; no code in it is run
    #[arg(
        long,
        env = "CANET_STATE_DICT",
        value_name = "FILE",
        requires = "args",
        conflicts_with_all = ["recbole", "data", "heads", "FormatArgs"]
    )]
    state_dict: Option<PathBuf>,
    /// The args.json that the authors' program wrote beside it
    #[arg(long, env = "CANET_ARGS", value_name = "FILE", requires = "state_dict")]
    args: Option<PathBuf>,
    /// The .pth of a SASRec that RecBole saved; no code in it is run
    #[arg(long, env = "CANET_RECBOLE", value_name = "FILE", requires = "data")]
    recbole: Option<PathBuf>,
    /// The interactions that RecBole trained on, in any form that other commands read. Popularity counts come from them, and
    /// the order of RecBole's items
    #[arg(long, env = "CANET_DATA", value_name = "PATH", num_args = 1.., requires = "recbole")]
    data: Vec<PathBuf>,
    /// Attention heads of a file without RecBole's configuration [default: what the configuration says]
    #[arg(long, env = "CANET_HEADS", value_name = "N", requires = "recbole")]
    heads: Option<usize>,
    /// Directory of the model, as models/NAME
    #[arg(long, env = "CANET_OUT", value_name = "DIR", value_parser = new_version_directory())]
    out: PathBuf,
    /// External item ids, one a line in dense order [default: the dense ids; with --recbole, the order in which the data name
    /// the items first]
    #[arg(long, env = "CANET_ITEMS", value_name = "FILE")]
    items: Option<PathBuf>,
    /// Width that scales a narrow slice's attention; the authors' code trains with full
    #[arg(long, env = "CANET_ATTENTION_SCALE", default_value = "full")]
    attention_scale: WidthRule,
    /// Width that sizes a narrow slice's feed-forward networks; the authors' code trains with full
    #[arg(long, env = "CANET_FFN_INNER", default_value = "full")]
    ffn_inner: WidthRule,
    #[command(flatten)]
    format: FormatArgs,
}

/// Reads, checks and writes the model, and prints the path of the version.
pub(crate) fn run(args: ImportArgs) -> Result<(), Failure> {
    let draft = match (&args.recbole, &args.state_dict, &args.args) {
        (Some(file), _, _) => args.read_recbole(file)?,
        (None, Some(state_dict), Some(arguments)) => args.read_authors(state_dict, arguments)?,
        _ => return Err(Failure::usage("--recbole, or --state-dict and --args are needed")),
    };
    let checkpoint = draft.write(&args.out).map_err(|error| Failure::writing(&error))?;
    let path = args.out.join(checkpoint.version.to_string());
    let (routes, items) = (checkpoint.space.len(), checkpoint.catalogue.len());
    let noun = if routes == 1 { "route" } else { "routes" };
    writeln!(io::stdout(), "{}: {routes} {noun} over {items} items", path.display()).map_err(Failure::output)
}

impl ImportArgs {
    fn read_authors(&self, state_dict: &Path, arguments: &Path) -> Result<CheckpointDraft, Failure> {
        let import = Import {
            state_dict,
            args: arguments,
            items: self.items.as_deref(),
            attention_scale: self.attention_scale,
            ffn_inner: self.ffn_inner,
        };
        import.read(&CpuBackend::single_threaded()).map_err(Failure::data)
    }

    fn read_recbole(&self, file: &Path) -> Result<CheckpointDraft, Failure> {
        let Some(data) = self.data.first() else { return Err(Failure::usage("--data is needed")) };
        let OrderedDataset { dataset, order } = self.format.read_ordered(&self.data)?;
        let counts = dataset.popularity_in(&dataset.training_sequences());
        let import = RecBoleImport {
            file,
            heads: self.heads,
            ids: self.items.as_deref(),
            data,
            items: dataset.ids.iter().cloned().zip(counts).collect(),
            order,
            selected: self.format.selects(),
            record: DataRecord {
                name: dataset.name.clone(),
                sha256: dataset.sha256.clone(),
                parsed_sha256: Some(dataset.parsed_sha256.clone()),
                users: Some(dataset.users.len() as u64),
                items: dataset.ids.len() as u64,
                interactions: Some(dataset.interactions),
            },
        };
        let draft = import.read(&CpuBackend::single_threaded()).map_err(Failure::data)?;
        let catalogue = draft.catalogue.with_titles(dataset.titles);
        Ok(CheckpointDraft { catalogue, ..draft })
    }
}
