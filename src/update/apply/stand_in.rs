//! Changes the ESP by writing all of it anew; to be replaced by the editor of `fs::fat`.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};

use crate::base::device::{Device, Window};
use crate::fs::fat::{self, Options, Reader};
use crate::tree::Tree;

pub type EditError = io::Error;

pub struct Editor<'d, D: Device> {
    device: &'d mut D,
    files: BTreeMap<String, Vec<u8>>,
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

impl<'d, D: Device> Editor<'d, D> {
    pub fn open(device: &'d mut D) -> io::Result<Self> {
        let size = crate::base::device::ReadAt::size(device);
        let mut reader = Reader::open(Window::new(&*device, 0, size)).map_err(other)?;
        let mut files = BTreeMap::new();
        for listed in reader.list().map_err(other)? {
            if listed.size.is_some() {
                let bytes = reader.read(&listed.path, u64::MAX).map_err(other)?;
                files.insert(listed.path, bytes);
            }
        }
        Ok(Self { device, files })
    }

    fn save(&mut self) -> io::Result<()> {
        let size = crate::base::device::ReadAt::size(self.device);
        let mut tree = Tree::new(0);
        for (path, bytes) in &self.files {
            tree.file(path, 0o644, bytes.clone()).map_err(other)?;
        }
        let sector_size = self.device.sector_size().bytes() as u32;
        let options = Options { size, sector_size, volume_id: 1, label: "ESP".to_owned(), mtime: 0 };
        let mut bytes = Cursor::new(vec![0; size as usize]);
        fat::write(&tree, &options, &mut bytes).map_err(other)?;
        self.device.write_at(bytes.get_ref(), 0)?;
        self.device.flush()
    }

    pub fn free(&self) -> u64 {
        crate::base::device::ReadAt::size(self.device)
            - self.files.values().map(|f| f.len() as u64).sum::<u64>()
    }

    pub fn put(&mut self, path: &str, from: &mut dyn Read, _size: u64) -> io::Result<()> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        self.files.insert(path.to_owned(), bytes);
        self.save()
    }

    pub fn remove(&mut self, path: &str) -> io::Result<bool> {
        let removed = self.files.remove(path).is_some();
        self.save()?;
        Ok(removed)
    }

    pub fn rename(&mut self, path: &str, new: &str) -> io::Result<()> {
        let bytes = self.files.remove(path).unwrap_or_default();
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        self.files.insert(format!("{folder}/{new}"), bytes);
        self.save()
    }
}
