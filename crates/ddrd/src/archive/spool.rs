//! Brings an archive into a file in which one can seek, and takes gzip off it.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek};

use flate2::bufread::MultiGzDecoder;

use super::{ArchiveError, MAX_SPOOL_BYTES};

/// First bytes of the formats that are known (RFC 1952, RFC 8878, the xz and bzip2 formats).
const GZIP: &[u8] = &[0x1f, 0x8b];
const FOREIGN: [(&str, &[u8]); 3] =
    [("zstd", &[0x28, 0xb5, 0x2f, 0xfd]), ("xz", b"\xfd7zXZ\0"), ("bzip2", b"BZh")];
/// The longest of them.
const HEAD_BYTES: u64 = 6;

/// A plain tar in a file: `input` itself if it is one, else a temporary file that has no name.
pub(super) fn seekable(mut input: File) -> Result<File, ArchiveError> {
    let read = ArchiveError::file;
    let is_file = input.metadata().map_err(read("the archive"))?.is_file();
    let head = head(&mut input).map_err(read("the archive"))?;
    if is_file && !head.starts_with(GZIP) {
        refuse_foreign(&head)?;
        return Ok(input);
    }
    spool(&head, input, MAX_SPOOL_BYTES)
}

fn head(input: &mut File) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    input.take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok(head)
}

/// Whether these bytes are the first of a gzip stream.
pub(super) fn is_gzip(head: &[u8]) -> bool {
    head.starts_with(GZIP)
}

fn refuse_foreign(head: &[u8]) -> Result<(), ArchiveError> {
    let found = FOREIGN.iter().find(|(_, magic)| head.starts_with(magic));
    found.map_or(Ok(()), |(name, _)| Err(ArchiveError::Compressed(name)))
}

/// Copies what `head` began and `rest` goes on with, at most `limit` bytes of it.
pub(super) fn spool(head: &[u8], rest: impl Read, limit: u64) -> Result<File, ArchiveError> {
    refuse_foreign(head)?;
    let whole = BufReader::new(Cursor::new(head).chain(rest));
    let mut file = tempfile::tempfile().map_err(ArchiveError::file("a temporary file"))?;
    let copied = if is_gzip(head) {
        io::copy(&mut MultiGzDecoder::new(whole).take(limit + 1), &mut file)
    } else {
        io::copy(&mut whole.take(limit + 1), &mut file)
    };
    let bytes = copied.map_err(ArchiveError::file("copying the archive to a temporary file"))?;
    if bytes > limit {
        return Err(ArchiveError::TooLarge { what: "the unpacked archive".into(), limit });
    }
    file.rewind().map_err(ArchiveError::file("a temporary file"))?;
    Ok(file)
}
