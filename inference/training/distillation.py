"""A network learns what another one says, not only what is true.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015: the divergence of the student's
probabilities from the teacher's, both softened by a temperature T, times T * T, so that gradients keep their size.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from inference.networks.heads import hierarchical_log_probabilities
from inference.networks.hybridmednet import NetworkOutput


def softened_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T * T times the mean divergence of the student's softmax from the teacher's.

    Parameters
    ----------
    student, teacher
        (B, K, ...) scores; the teacher's are not pulled.
    """
    log_student = functional.log_softmax(student / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher.detach() / temperature, dim=1)
    divergence = functional.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=1)  # (B, ...)
    return temperature**2 * divergence.mean()


def distillation_loss(
    student: NetworkOutput, teacher: NetworkOutput, is_classified: Tensor, parents: Sequence[int], temperature: float
) -> Tensor:
    """Return the divergence of the fine classes, of views that may teach the classifier, and of the segmentation.

    Parameters
    ----------
    is_classified
        (B,) bool.
    parents
        Coarse class of each fine class.
    """
    segmentation = softened_divergence(student.segmentation, teacher.segmentation, temperature)
    if not bool(is_classified.any()):
        return segmentation
    softened = (temperature, temperature)
    ours = hierarchical_log_probabilities(student.classes, parents, softened).fine[is_classified]
    theirs = hierarchical_log_probabilities(teacher.classes, parents, softened).fine[is_classified].detach()
    classes = functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    return segmentation + temperature**2 * classes
