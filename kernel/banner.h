/* SPDX-License-Identifier: MIT */
/* What the guest says about itself and its machine before it begins. */
#ifndef KERNEL_BANNER_H
#define KERNEL_BANNER_H

/* After all drivers are set up. */
void banner_print(void);

#endif
