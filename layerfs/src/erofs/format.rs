//! Numbers of the on-disk format, and the few encodings that writer and parser share.
//!
//! From the kernel's Documentation/filesystems/erofs.rst and the structure definitions of fs/erofs/erofs_fs.h.

/// Block size: that of tar, so that each file of a tar starts at a block.
pub(super) const BLOCK_BYTES: u64 = 1 << BLOCK_BITS;
pub(super) const BLOCK_BITS: u8 = 9;

pub(super) const SUPER_OFFSET: usize = 1024;
pub(super) const SUPER_BYTES: usize = 128;
pub(super) const SUPER_MAGIC: u32 = 0xE0F5_E1E2;
/// The checksum covers from the superblock to the end of its block, and with blocks smaller than the superblock's
/// offset one block's worth of bytes.
pub(super) const CHECKSUM_BYTES: usize = BLOCK_BYTES as usize;
pub(super) const COMPAT_CHECKSUM: u32 = 1;
pub(super) const COMPAT_MTIME: u32 = 2;
pub(super) const INCOMPAT_CHUNKED_FILE: u32 = 4;
pub(super) const INCOMPAT_DEVICE_TABLE: u32 = 8;

pub(super) const DEVICE_SLOT_BYTES: usize = 128;
pub(super) const DEVICE_TAG_BYTES: usize = 64;
/// The first slot after the superblock, in units of slots.
pub(super) const DEVICE_TABLE_SLOT: usize = (SUPER_OFFSET + SUPER_BYTES) / DEVICE_SLOT_BYTES;

/// Inodes are numbered by where they start, in units of 32 bytes.
pub(super) const SLOT_BYTES: u64 = 32;
/// All inodes are of the extended form: the compact one has no time of its own.
pub(super) const INODE_BYTES: u64 = 64;
pub(super) const LAYOUT_PLAIN: u16 = 0;
pub(super) const LAYOUT_INLINE: u16 = 2;
pub(super) const LAYOUT_CHUNKS: u16 = 4;

/// What an inode's i_format holds: extended form, data layout.
pub(super) const fn inode_format(layout: u16) -> u16 {
    1 | layout << 1
}

/// A chunk is `BLOCK_BYTES << bits`, with the bits in five bits.
pub(super) const CHUNK_BITS_MAX: u8 = 31;
/// The chunk table has 8-byte entries (with a device) instead of 4-byte ones.
pub(super) const CHUNK_INDEXES: u16 = 0x20;
pub(super) const CHUNK_INDEX_BYTES: u64 = 8;
/// The block address of a hole.
pub(super) const HOLE: u32 = u32::MAX;

pub(super) const DIRENT_BYTES: usize = 12;
pub(super) const NAME_BYTES_MAX: usize = 255;

pub(super) const XATTR_HEADER_BYTES: usize = 12;
pub(super) const XATTR_ENTRY_BYTES: usize = 4;
/// Shared attributes of one inode are counted in eight bits.
pub(super) const XATTR_SHARED_MAX: usize = 255;

pub(super) const S_IFMT: u16 = 0o170_000;
pub(super) const S_IFIFO: u16 = 0o010_000;
pub(super) const S_IFCHR: u16 = 0o020_000;
pub(super) const S_IFDIR: u16 = 0o040_000;
pub(super) const S_IFBLK: u16 = 0o060_000;
pub(super) const S_IFREG: u16 = 0o100_000;
pub(super) const S_IFLNK: u16 = 0o120_000;

/// The type byte of a directory entry (FT_REG_FILE and so on, linux/fs_types.h) for a mode; 0 if unknown.
pub(super) const fn file_type(mode: u16) -> u8 {
    match mode & S_IFMT {
        S_IFREG => 1,
        S_IFDIR => 2,
        S_IFCHR => 3,
        S_IFBLK => 4,
        S_IFIFO => 5,
        S_IFLNK => 7,
        _ => 0,
    }
}

/// A device number in 32 bits, as `new_encode_dev` of linux/kdev_t.h has it.
pub(super) const fn encode_device(major: u32, minor: u32) -> u32 {
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

/// The major and minor of [`encode_device`].
pub(super) const fn decode_device(device: u32) -> (u32, u32) {
    (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00)
}

/// `value` rounded up to a multiple of `unit`.
pub(super) const fn round_up(value: u64, unit: u64) -> u64 {
    value.div_ceil(unit) * unit
}

/// The superblock's checksum: CRC-32C (Castagnoli), seeded with ones, not inverted at the end.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    const REVERSED_POLYNOMIAL: u32 = 0x82F6_3B78;
    bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { REVERSED_POLYNOMIAL } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc32c() {
        // The check value of RFC 3720, appendix B.4, "CRC-32C" of "123456789".
        assert_eq!(!checksum(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn device_numbers_round_trip() {
        for (major, minor) in [(0, 0), (1, 3), (8, 255), (8, 256), (4095, (1 << 20) - 1)] {
            assert_eq!(decode_device(encode_device(major, minor)), (major, minor));
        }
        assert_eq!(encode_device(1, 3), 0x103);
    }
}
