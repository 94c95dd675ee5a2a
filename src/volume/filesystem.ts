/**
 * The volume as a FUSE file system: the kernel's node ids and handles to nodes and open files, and each request to the
 * operation on all replicas (`requests-*.ts`). What replication means is not decided here.
 */
import type { FileSystem } from "../fuse/filesystem.ts";
import { VolumeContext, type VolumeDeps, type VolumeOptions } from "./requests.ts";
import { AttributeRequests } from "./requests-attributes.ts";
import { DirectoryRequests } from "./requests-directories.ts";
import { FileRequests } from "./requests-files.ts";
import { NameRequests } from "./requests-names.ts";

export function volumeFileSystem(deps: VolumeDeps, options: VolumeOptions): FileSystem {
  const context = new VolumeContext(deps, options);
  const names = new NameRequests(context);
  const attributes = new AttributeRequests(context);
  const files = new FileRequests(context);
  const directories = new DirectoryRequests(context);
  return {
    init: deps.onInit,
    lookup: names.lookup.bind(names),
    forget: names.forget.bind(names),
    mkdir: names.mkdir.bind(names),
    mknod: names.mknod.bind(names),
    symlink: names.symlink.bind(names),
    link: names.link.bind(names),
    unlink: names.unlink.bind(names),
    rmdir: names.rmdir.bind(names),
    rename: names.rename.bind(names),
    getattr: attributes.getattr.bind(attributes),
    setattr: attributes.setattr.bind(attributes),
    readlink: attributes.readlink.bind(attributes),
    getxattr: attributes.getxattr.bind(attributes),
    listxattr: attributes.listxattr.bind(attributes),
    setxattr: attributes.setxattr.bind(attributes),
    removexattr: attributes.removexattr.bind(attributes),
    open: files.open.bind(files),
    create: files.create.bind(files),
    tmpfile: files.tmpfile.bind(files),
    read: files.read.bind(files),
    write: files.write.bind(files),
    flush: files.flush.bind(files),
    release: files.release.bind(files),
    fsync: files.fsync.bind(files),
    fallocate: files.fallocate.bind(files),
    lseek: files.lseek.bind(files),
    copyFileRange: files.copyFileRange.bind(files),
    opendir: directories.opendir.bind(directories),
    readdir: directories.readdir.bind(directories),
    releasedir: directories.releasedir.bind(directories),
    fsyncdir: directories.fsyncdir.bind(directories),
    statfs: directories.statfs.bind(directories),
    syncfs: directories.syncfs.bind(directories),
  };
}
