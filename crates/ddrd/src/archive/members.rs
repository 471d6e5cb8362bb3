//! The members of a tar (POSIX ustar and pax, GNU long names): names and places, no content.
//!
//! One pass over the headers; content is skipped. Nothing is unpacked. What could mean different
//! things to different readers is refused: names twice, sparse files, bytes after the end.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use tar::{EntryType, Header, PaxExtensions};

use super::name::{clean, resolve};
use super::{
    ArchiveError, CHUNK_BYTES, MAX_EXTENSION_BYTES, MAX_MEMBERS, MAX_NAME_BYTES, MAX_PADDING_BYTES,
};

const BLOCK: u64 = 512;

/// One member.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Member {
    /// A file: where its bytes begin, and how many there are.
    File { offset: u64, size: u64 },
    /// Another name of a member.
    Link(String),
}

/// What extended headers say about the member after them.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

/// All files and links of a tar, by name.
pub(super) fn index(file: &File) -> Result<BTreeMap<String, Member>, ArchiveError> {
    let end = file.metadata().map_err(ArchiveError::file("the archive"))?.len();
    let mut scan = Scan { file, at: 0, end };
    let (mut members, mut extended) = (BTreeMap::new(), Extended::default());
    while let Some(header) = scan.header()? {
        match header.entry_type() {
            EntryType::GNULongName => extended.name = Some(scan.long(&header)?),
            EntryType::GNULongLink => extended.link = Some(scan.long(&header)?),
            EntryType::XHeader => scan.pax(&header, &mut extended)?,
            EntryType::XGlobalHeader => drop(scan.extension(&header)?),
            _ => {
                let member = scan.member(&header, std::mem::take(&mut extended))?;
                member.map_or(Ok(()), |(name, member)| add(&mut members, name, member))?;
            }
        }
    }
    Ok(members)
}

fn add(
    members: &mut BTreeMap<String, Member>,
    name: String,
    member: Member,
) -> Result<(), ArchiveError> {
    if members.len() >= MAX_MEMBERS {
        let what = "the number of files in the archive".to_owned();
        return Err(ArchiveError::TooLarge { what, limit: MAX_MEMBERS as u64 });
    }
    match members.entry(name) {
        Entry::Occupied(twice) => {
            Err(ArchiveError::Format(format!("the archive holds {} twice", twice.key())))
        }
        Entry::Vacant(place) => {
            place.insert(member);
            Ok(())
        }
    }
}

/// A place in a tar.
struct Scan<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Scan<'_> {
    /// The next header; nothing at the end mark.
    fn header(&mut self) -> Result<Option<Header>, ArchiveError> {
        if self.end - self.at < BLOCK {
            return Err(ArchiveError::Truncated("there is no end mark of a tar"));
        }
        let mut header = Header::new_old();
        self.read(header.as_mut_bytes())?;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            self.rest()?;
            return Ok(None);
        }
        if !is_intact(&header) {
            return Err(ArchiveError::Format("not a tar, or a damaged one".into()));
        }
        self.at += BLOCK;
        Ok(Some(header))
    }

    /// After the end there is nothing: at least a second empty block, and only zeros.
    fn rest(&self) -> Result<(), ArchiveError> {
        let left = self.end - self.at;
        if left < 2 * BLOCK {
            return Err(ArchiveError::Truncated("the end mark of the tar is cut"));
        }
        if left > MAX_PADDING_BYTES {
            let what = "what follows the end of the tar".to_owned();
            return Err(ArchiveError::TooLarge { what, limit: MAX_PADDING_BYTES });
        }
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut at = self.at;
        while at < self.end {
            let len = chunk.len().min(usize::try_from(self.end - at).unwrap_or(CHUNK_BYTES));
            self.file.read_exact_at(&mut chunk[..len], at).map_err(short)?;
            if chunk[..len].iter().any(|byte| *byte != 0) {
                return Err(ArchiveError::Format("something follows the end of the tar".into()));
            }
            at += len as u64;
        }
        Ok(())
    }

    /// Name and place of a member; nothing for a directory.
    fn member(
        &mut self,
        header: &Header,
        extended: Extended,
    ) -> Result<Option<(String, Member)>, ArchiveError> {
        let name = extended.name.map_or_else(|| utf8(&header.path_bytes()), Ok)?;
        let link = || match &extended.link {
            Some(link) => Ok(link.clone()),
            None => utf8(&header.link_name_bytes().unwrap_or_default()),
        };
        let is_directory = name.ends_with('/');
        let name = clean(&name)?;
        match header.entry_type() {
            EntryType::Regular | EntryType::Continuous if !is_directory && !name.is_empty() => {
                let size = extended.size.map_or_else(|| size_of(header), Ok)?;
                let offset = self.at;
                self.skip(size)?;
                Ok(Some((name, Member::File { offset, size })))
            }
            EntryType::Regular | EntryType::Directory if size_of(header)? == 0 => Ok(None),
            EntryType::Link => Ok(Some((name, Member::Link(clean(&link()?)?)))),
            EntryType::Symlink => {
                let target = resolve(&name, &link()?)?;
                Ok(Some((name, Member::Link(target))))
            }
            _ => Err(ArchiveError::Format(format!(
                "the archive holds {name:?}, which is neither file, link nor directory"
            ))),
        }
    }

    fn long(&mut self, header: &Header) -> Result<String, ArchiveError> {
        let bytes = self.extension(header)?;
        let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        utf8(&bytes[..len])
    }

    fn pax(&mut self, header: &Header, extended: &mut Extended) -> Result<(), ArchiveError> {
        let bad = || ArchiveError::Format("an extended header of the tar is damaged".into());
        let bytes = self.extension(header)?;
        for extension in PaxExtensions::new(&bytes) {
            let extension = extension.map_err(|_| bad())?;
            let value = extension.value_bytes();
            match extension.key_bytes() {
                b"path" => extended.name = Some(utf8(value)?),
                b"linkpath" => extended.link = Some(utf8(value)?),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    extended.size = Some(size.ok_or_else(bad)?);
                }
                sparse if sparse.starts_with(b"GNU.sparse.") => {
                    return Err(ArchiveError::Format("the archive holds a sparse file".into()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The content of an extended header.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, ArchiveError> {
        let size = size_of(header)?;
        if size > MAX_EXTENSION_BYTES {
            let what = "an extended header of the tar".to_owned();
            return Err(ArchiveError::TooLarge { what, limit: MAX_EXTENSION_BYTES });
        }
        let begin = self.at;
        self.skip(size)?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, begin).map_err(short)?;
        Ok(bytes)
    }

    fn read(&self, block: &mut [u8]) -> Result<(), ArchiveError> {
        self.file.read_exact_at(block, self.at).map_err(short)
    }

    /// Goes past content, which fills whole blocks and must be there.
    fn skip(&mut self, size: u64) -> Result<(), ArchiveError> {
        let padded = size.checked_next_multiple_of(BLOCK);
        let next = padded.and_then(|padded| self.at.checked_add(padded));
        self.at = next
            .filter(|next| *next <= self.end)
            .ok_or(ArchiveError::Truncated("the last file of the tar is cut"))?;
        Ok(())
    }
}

fn short(error: io::Error) -> ArchiveError {
    ArchiveError::file("reading the archive")(error)
}

fn utf8(bytes: &[u8]) -> Result<String, ArchiveError> {
    if bytes.len() > MAX_NAME_BYTES {
        let what = "a name in the archive".to_owned();
        return Err(ArchiveError::TooLarge { what, limit: MAX_NAME_BYTES as u64 });
    }
    let text = std::str::from_utf8(bytes).map(str::to_owned);
    text.map_err(|_| ArchiveError::Path(String::from_utf8_lossy(bytes).into_owned()))
}

fn size_of(header: &Header) -> Result<u64, ArchiveError> {
    header.entry_size().map_err(|_| ArchiveError::Format("a size in the tar is no number".into()))
}

/// The sum of all bytes with the field of the sum as blanks (POSIX, pax, "ustar Header Block").
fn is_intact(header: &Header) -> bool {
    const FIELD: std::ops::Range<usize> = 148..156;
    let byte = |(at, byte): (usize, &u8)| {
        if FIELD.contains(&at) { u32::from(b' ') } else { u32::from(*byte) }
    };
    let sum: u32 = header.as_bytes().iter().enumerate().map(byte).sum();
    header.cksum().is_ok_and(|said| said == sum)
}
