//! A disk of its own for one member: a file with an ext4 in it. It can be full, and lose power with what it was not told to keep.

use std::path::{Path, PathBuf};
use std::process::Command;

/// `EXT4_IOC_SHUTDOWN` of the kernel's `fs/ext4/ext4.h`, without flushing the journal: as a power cut leaves it. Python has ioctl without
/// unsafe code of ours.
const SHUT_DOWN: &str = "import fcntl, os, struct, sys; \
     fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

/// Size of a disk: a log that is purged has some MiB.
const MEBIBYTES: u64 = 96;

/// A disk, mounted. It is gone when it is dropped, after whoever uses it.
#[derive(Debug)]
pub struct LoopDisk {
    image: PathBuf,
    mount: PathBuf,
}

/// Where the id of the process is that made the disk of this directory.
fn owner(mount: &Path) -> PathBuf {
    mount.with_extension("owner")
}

/// Takes away the disks of processes that were killed.
pub(crate) fn remove_orphans() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let loops = mounts.lines().filter(|line| line.starts_with("/dev/loop"));
    for mount in loops.filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from) {
        // Others have no such file.
        let Ok(id) = std::fs::read_to_string(owner(&mount)) else { continue };
        if !Path::new("/proc").join(id.trim()).exists() {
            drop(LoopDisk { image: mount.with_extension("disk"), mount });
        }
    }
}

fn run(program: &str, arguments: &[&Path]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

impl LoopDisk {
    /// Programs that it takes.
    pub const TOOLS: [&str; 4] = ["mkfs.ext4", "mount", "umount", "python3"];

    /// Makes one beside this directory and mounts it there.
    ///
    /// # Panics
    /// When that does not work; loop devices take root.
    pub fn at(mount: &Path) -> Self {
        let image = mount.with_extension("disk");
        std::fs::File::create(&image).unwrap().set_len(MEBIBYTES << 20).unwrap();
        run("mkfs.ext4", &[Path::new("-q"), Path::new("-F"), &image]);
        std::fs::create_dir_all(mount).unwrap();
        std::fs::write(owner(mount), std::process::id().to_string()).unwrap();
        let disk = Self { image, mount: mount.to_owned() };
        disk.plug_in();
        disk
    }

    fn plug_in(&self) {
        run("mount", &[Path::new("-o"), Path::new("loop"), &self.image, &self.mount]);
    }

    /// Takes its power away: what it was not told to keep is gone, and whoever writes gets errors.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn cut_power(&self) {
        run("python3", &[Path::new("-c"), Path::new(SHUT_DOWN), &self.mount]);
    }

    /// Brings it back after a power cut, once nobody uses it.
    ///
    /// # Panics
    /// When that does not work.
    pub fn power_up(&self) {
        run("umount", &[&self.mount]);
        self.plug_in();
    }

    /// The file that fills it.
    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }

    /// Leaves no byte free on it.
    ///
    /// # Panics
    /// When it cannot be written for another reason than that it is full.
    pub fn fill(&self) {
        use std::io::{ErrorKind, Write};
        let mut file = std::fs::File::create(self.ballast()).unwrap();
        for size in [1 << 20, 1 << 12, 1] {
            let bytes = vec![1; size];
            loop {
                match file.write(&bytes) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{}: {error}", self.mount.display()),
                }
            }
        }
    }

    /// Gives back what [`LoopDisk::fill`] has taken.
    pub fn free(&self) {
        // A power cut may have taken it.
        let _ = std::fs::remove_file(self.ballast());
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // At once for everybody, and in truth once the last one is gone.
        let _ = Command::new("umount").arg("--lazy").arg(&self.mount).output();
        let _ = std::fs::remove_file(&self.image);
    }
}

/// Copies files, with the directories that they are in.
///
/// # Panics
/// When one cannot be read or written.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy_tree(&entry.path(), &place);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), place).unwrap();
        }
    }
}

/// Makes a directory what another one is.
///
/// # Panics
/// As [`copy_tree`].
pub fn replace_tree(with: &Path, at: &Path) {
    for entry in std::fs::read_dir(at).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            // A disk has one that only fsck uses, which is empty.
            std::fs::remove_dir_all(entry.path()).unwrap();
        } else {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    copy_tree(with, at);
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Write};

    use super::*;
    use crate::{has_tools, is_root, skip};

    fn disk() -> Option<(LoopDisk, tempfile::TempDir)> {
        if !is_root() {
            skip("loop devices take root");
            return None;
        }
        let dir = has_tools(&LoopDisk::TOOLS).then(|| tempfile::TempDir::new().unwrap())?;
        Some((LoopDisk::at(&dir.path().join("data")), dir))
    }

    #[test]
    fn a_power_cut_takes_what_was_not_synced_and_nothing_else() {
        let Some((disk, dir)) = disk() else { return };
        let path = dir.path().join("data/log");
        let mut file = File::create(&path).unwrap();
        file.write_all(&[1; 4096]).unwrap();
        file.sync_all().unwrap();
        File::open(path.parent().unwrap()).unwrap().sync_all().unwrap();
        file.write_all(&[2; 4096]).unwrap();
        disk.cut_power();
        assert!(file.write_all(&[3]).and_then(|()| file.sync_all()).is_err());
        drop(file);
        disk.power_up();
        assert_eq!(std::fs::read(&path).unwrap(), [1; 4096]);
    }

    #[test]
    fn a_full_disk_takes_no_byte_until_it_is_freed() {
        let Some((disk, dir)) = disk() else { return };
        disk.fill();
        let write = || std::fs::write(dir.path().join("data/log"), [0; 8192]);
        assert_eq!(write().unwrap_err().kind(), ErrorKind::StorageFull);
        disk.free();
        write().unwrap();
    }
}
