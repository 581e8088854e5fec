//! The file systems that several machines can have mounted at once.

/// Their types (statfs(2), linux/magic.h): NFS, SMB of three versions, Ceph, AFS of two kinds, 9P, GFS2, OCFS2, Lustre, GPFS,
/// BeeGFS; and FUSE, which may be GlusterFS or another one. Changes by other machines are not told to watchers here
/// (inotify(7)).
pub const TYPES: [i64; 14] = [
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x00c3_6400,
    0x5346_414f,
    0x6b41_4653,
    0x0102_1997,
    0x0116_1970,
    0x7461_636f,
    0x0bd0_0bd0,
    0x4750_4653,
    0x1983_0326,
    0x6573_5546,
];
