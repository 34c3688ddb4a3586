//! Decoder of Zstandard files: one frame after another, with checksums compared, over ruzstd, which decodes one frame.

use std::io::{self, BufRead, Read};

use ruzstd::decoding::BlockDecodingStrategy::UptoBlocks;
use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

/// Decompressed bytes of every frame of a file; skippable frames are passed over.
pub(super) struct Frames<R> {
    inner: R,
    decoder: FrameDecoder,
    /// Whether the decoder stands inside a frame.
    open: bool,
}

impl<R: BufRead> Frames<R> {
    pub fn new(inner: R) -> Frames<R> {
        Frames { inner, decoder: FrameDecoder::new(), open: false }
    }

    /// Starts the next frame that holds data; `false` at the end of the file.
    fn start_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.inner.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.inner) {
                Ok(()) => {
                    self.open = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    if io::copy(&mut (&mut self.inner).take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    /// Compares the frame's checksum, where it has one.
    fn end_frame(&mut self) -> io::Result<()> {
        self.open = false;
        match self.decoder.get_checksum_from_data() {
            Some(listed) if self.decoder.get_calculated_checksum() != Some(listed) => {
                Err(io::Error::other("the checksum of a frame is wrong"))
            }
            _ => Ok(()),
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.open && !self.start_frame()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder.decode_blocks(&mut self.inner, UptoBlocks(1)).map_err(io::Error::other)?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            self.end_frame()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn decode(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        Frames::new(bytes).read_to_end(&mut text)?;
        Ok(text)
    }

    #[test]
    fn frames_are_joined_and_skippable_ones_left_out() {
        let mut bytes = compress_to_vec(&b"one "[..], CompressionLevel::Fastest);
        bytes.extend(b"\x50\x2a\x4d\x18\x03\0\0\0xyz");
        bytes.extend(compress_to_vec(&b"two"[..], CompressionLevel::Fastest));
        assert_eq!(decode(&bytes).unwrap(), b"one two");
        for cut in [3, bytes.len() - 2] {
            assert!(decode(&bytes[..cut]).is_err(), "{cut}");
        }
    }

    /// Made with `printf 'checksum me\n' | zstd`, whose frames end in a checksum.
    #[test]
    fn a_wrong_checksum_is_an_error() {
        let frame = include_bytes!("../../tests/fixtures/checksum.zst");
        assert_eq!(decode(frame).unwrap(), b"checksum me\n");
        let mut wrong = frame.to_vec();
        *wrong.last_mut().unwrap() ^= 1;
        assert!(decode(&wrong).unwrap_err().to_string().contains("checksum"));
    }
}
