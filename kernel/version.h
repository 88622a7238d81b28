/* SPDX-License-Identifier: MIT */
/* The version that the banner shows. */
#ifndef KERNEL_VERSION_H
#define KERNEL_VERSION_H

#define SLOTH_VERSION "0.1"

#endif
