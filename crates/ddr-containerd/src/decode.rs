//! Decoders of what comes off the socket: frames of gRPC, and the messages in them.
//!
//! They are pure: bytes in, values out. Each takes any bytes and gives an error for those that are none of
//! its messages. They are public for the fuzz targets; the client is the one user.

use std::path::PathBuf;

use bytes::Bytes;
use prost::Message as _;

use crate::content::Content;
use crate::image::Image;
use crate::messages::{Contents, Envelope, ImageInfo, Images, Info, Namespaces, Plugins, ReadPart};
use crate::namespaces::is_namespace;

mod frames;
mod status;

pub use frames::Frames;
pub use status::{MAX_STATUS_BYTES, Status, status};

/// Longest message that is read, in bytes: the most that containerd sends.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Type and name of the plugin that is the content store.
pub(crate) const STORE_PLUGIN: (&str, &str) = ("io.containerd.content.v1", "content");
/// What it calls the directory of its files.
const STORE_ROOT: &str = "root";

/// Why bytes are no answer. What they are instead is not repeated.
#[derive(Copy, Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Not a message of this kind.
    #[error("containerd sent a message that cannot be read")]
    Message,
    /// A frame of a message beyond [`MAX_MESSAGE_BYTES`].
    #[error("containerd sent a message of more than {MAX_MESSAGE_BYTES} bytes")]
    TooLong,
    /// A compressed frame, though nobody asked for that.
    #[error("containerd sent a frame of an unknown kind")]
    Frame,
    /// The answer ended within a frame.
    #[error("containerd's answer ended within a message")]
    Cut,
    /// The answer ended without a status, or its status is none.
    #[error("containerd's answer has no status")]
    Status,
}

impl From<prost::DecodeError> for DecodeError {
    fn from(_: prost::DecodeError) -> Self {
        Self::Message
    }
}

/// The namespaces of a `ListNamespacesResponse`. Texts that are none are left out.
///
/// # Errors
/// [`DecodeError::Message`].
pub fn namespaces(message: Bytes) -> Result<Vec<String>, DecodeError> {
    let names = Namespaces::decode(message)?.namespaces.into_iter().map(|namespace| namespace.name);
    Ok(names.filter(|name| is_namespace(name)).collect())
}

/// The entries of a `ListContentResponse` whose digests are ours.
///
/// # Errors
/// [`DecodeError::Message`].
pub fn contents(message: Bytes, namespace: &str) -> Result<Vec<Content>, DecodeError> {
    let mut contents = Vec::new();
    for info in Contents::decode(message)?.info {
        contents.extend(Content::of(&Info::decode(info)?, namespace));
    }
    Ok(contents)
}

/// The entries of a `ListImagesResponse` that are named after a registry.
///
/// # Errors
/// [`DecodeError::Message`].
pub fn images(message: Bytes, namespace: &str) -> Result<Vec<Image>, DecodeError> {
    let mut images = Vec::new();
    for info in Images::decode(message)?.images {
        images.extend(Image::of(&ImageInfo::decode(info)?, namespace));
    }
    Ok(images)
}

/// Offset and bytes of a `ReadContentResponse`.
///
/// # Errors
/// [`DecodeError::Message`], also for a negative offset.
pub fn part(message: Bytes) -> Result<(u64, Bytes), DecodeError> {
    let ReadPart { offset, data } = ReadPart::decode(message)?;
    let offset = u64::try_from(offset).map_err(|_| DecodeError::Message)?;
    Ok((offset, data))
}

/// The directory of the content store in a `PluginsResponse`; `None`: not told, or no absolute path.
///
/// # Errors
/// [`DecodeError::Message`].
pub fn content_root(message: Bytes) -> Result<Option<PathBuf>, DecodeError> {
    let (kind, id) = STORE_PLUGIN;
    let plugins = Plugins::decode(message)?.plugins;
    let store = plugins.into_iter().find(|plugin| plugin.kind == kind && plugin.id == id);
    let root = store.and_then(|mut plugin| plugin.exports.remove(STORE_ROOT)).map(PathBuf::from);
    Ok(root.filter(|root| root.is_absolute()))
}

/// Namespace and topic of an event's `Envelope`.
///
/// # Errors
/// [`DecodeError::Message`].
pub fn event(message: Bytes) -> Result<(String, String), DecodeError> {
    let Envelope { namespace, topic } = Envelope::decode(message)?;
    Ok((namespace, topic))
}

#[cfg(test)]
mod tests;
