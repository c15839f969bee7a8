//! The memory that this process may still take.

use std::fs;
use std::path::Path;

/// Bytes that this process may take without swapping or being killed: what the machine has left, or less if a control group
/// limits it, as in a container. `None` if the system does not say.
pub(crate) fn available() -> Option<u64> {
    available_under(Path::new("/"))
}

/// Bytes that the interactions of a file may take: three quarters of what is available, so that the command has room to use
/// them.
pub(crate) fn for_interactions() -> Option<u64> {
    available().map(|bytes| bytes / 4 * 3)
}

/// Bytes that this process takes now.
#[cfg_attr(not(feature = "libtorch"), allow(dead_code, reason = "only `train` estimates its memory"))]
pub(crate) fn taken() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    kilobytes(&status, "VmRSS:")
}

/// Bytes as a user reads them.
#[cfg_attr(not(feature = "libtorch"), allow(dead_code, reason = "only `train` prints its memory"))]
pub(crate) fn gigabytes(bytes: u64) -> String {
    if bytes < 1_000_000_000 {
        format!("{:.0} MB", bytes as f64 / 1e6)
    } else {
        format!("{:.1} GB", bytes as f64 / 1e9)
    }
}

fn available_under(root: &Path) -> Option<u64> {
    let machine = kilobytes(&fs::read_to_string(root.join("proc/meminfo")).ok()?, "MemAvailable:")?;
    Some(machine.min(left_in_groups(root)))
}

/// The value of a line such as `MemAvailable:   2048 kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The names of a control group's files, which differ between the two versions of the interface.
struct GroupFiles {
    limit: &'static str,
    usage: &'static str,
    /// The line of `memory.stat` that counts cached files, which the system drops when memory is short.
    cached: &'static str,
}

const VERSION_1: GroupFiles =
    GroupFiles { limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", cached: "total_inactive_file" };
const VERSION_2: GroupFiles = GroupFiles { limit: "memory.max", usage: "memory.current", cached: "inactive_file" };

/// Bytes that this process's control group and all groups above it have left.
fn left_in_groups(root: &Path) -> u64 {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let left = groups.lines().map(|line| {
        // `number:controllers:path`; version 2 has no controllers.
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let (base, files) = match controllers {
            "" => ("sys/fs/cgroup", VERSION_2),
            some if some.split(',').any(|name| name == "memory") => ("sys/fs/cgroup/memory", VERSION_1),
            _ => return u64::MAX,
        };
        let base = root.join(base);
        // In a container the path may be the host's. The mounted directory is the container's own group then.
        let group = base.join(path.trim_start_matches('/'));
        let groups = group.ancestors().take_while(|group| group.starts_with(&base));
        groups.filter_map(|group| files.left_in(group)).min().unwrap_or(u64::MAX)
    });
    left.min().unwrap_or(u64::MAX)
}

impl GroupFiles {
    /// Bytes that a group has left; `None` if it has no limit.
    fn left_in(&self, group: &Path) -> Option<u64> {
        let read = |name: &str| fs::read_to_string(group.join(name)).ok();
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        let (limit, usage) = (number(self.limit)?, number(self.usage)?);
        let cached = read("memory.stat").and_then(|stat| {
            let line =
                stat.lines().find_map(|line| line.strip_prefix(self.cached)?.strip_prefix(' ').map(str::to_owned))?;
            line.trim().parse::<u64>().ok()
        });
        Some(limit.saturating_sub(usage.saturating_sub(cached.unwrap_or(0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The available bytes of a system with these files.
    fn available_with(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        available_under(root.path())
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:  4000 kB\nMemAvailable:    2000 kB\n");

    #[test]
    fn without_a_limit_the_machine_counts() {
        assert_eq!(available_with(&[]), None);
        assert_eq!(available_with(&[MACHINE]), Some(2_048_000));
        let group = [("proc/self/cgroup", "0::/a\n"), ("sys/fs/cgroup/a/memory.max", "max\n")];
        assert_eq!(available_with(&[&[MACHINE][..], &group].concat()), Some(2_048_000));
    }

    #[test]
    fn the_smallest_room_of_all_groups_counts_and_cached_files_take_none() {
        let groups = [
            MACHINE,
            ("proc/self/cgroup", "3:cpu:/x\n0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "900000\n"),
            ("sys/fs/cgroup/a/b/memory.current", "100000\n"),
            ("sys/fs/cgroup/a/memory.max", "500000\n"),
            ("sys/fs/cgroup/a/memory.current", "300000\n"),
            ("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 50000\n"),
        ];
        assert_eq!(available_with(&groups), Some(250_000));
    }

    #[test]
    fn the_first_version_of_the_interface_and_a_path_of_the_host_count() {
        let groups = [
            MACHINE,
            ("proc/self/cgroup", "4:hugetlb,memory:/docker/unseen\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "700000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "200000\n"),
            ("sys/fs/cgroup/memory/memory.stat", "inactive_file 9\ntotal_inactive_file 100000\n"),
        ];
        assert_eq!(available_with(&groups), Some(600_000));
    }

    #[test]
    fn this_process_takes_memory() {
        assert!(taken().unwrap() > 1_000_000 && available().is_some());
        assert_eq!((gigabytes(12_400_000), gigabytes(12_400_000_000)), ("12 MB".to_owned(), "12.4 GB".to_owned()));
    }
}
