// Loaded by the viewer's start page behind the settings that the gateway writes (`window.config`).
// OHIF takes extensions as objects; this one changes how three kinds of object are shown, and nothing that is stored.
"use strict";

(function () {
  const REPORTS = ["dicom-sr", "dicom-sr-3d"].map(
    (name) => "@ohif/extension-cornerstone-dicom-sr.sopClassHandlerModule." + name
  );
  const SEGMENTATIONS = "@ohif/extension-cornerstone-dicom-seg.sopClassHandlerModule.dicom-seg";
  const MEASUREMENT_GROUP = "125007";
  const ROWS_AND_COLUMNS = [1, 0, 0, 0, 1, 0];

  function asList(value) {
    return value === undefined || value === null ? [] : Array.isArray(value) ? value : [value];
  }

  // A structured report whose groups have no spatial coordinates is shown as text. OHIF 3.13 takes every report titled
  // (126000, DCM) for a list of drawn measurements, and fails where one has nothing to draw.
  function showAsText(displaySets) {
    displaySets
      .filter((each) => !each.instances.every(isDrawn))
      .forEach((each) => {
        each.isImagingMeasurementReport = false;
      });
  }

  function isDrawn(report) {
    const found = groups(report);
    return found.length > 0 && found.every(hasCoordinates);
  }

  function groups(item) {
    return asList(item.ContentSequence).flatMap((child) => {
      const name = asList(child.ConceptNameCodeSequence)[0];
      return name && name.CodeValue === MEASUREMENT_GROUP ? [child] : groups(child);
    });
  }

  function hasCoordinates(item) {
    return asList(item.ContentSequence).some(
      (child) => child.ValueType === "SCOORD" || child.ValueType === "SCOORD3D" || hasCoordinates(child)
    );
  }

  // A projection image has no place in the patient, the plane of its segmentation was made up, and OHIF finds that the
  // two do not fit. Rows and columns are those of the image: that is all there is to compare.
  function layOnImage(displaySets, displaySetService) {
    displaySets.forEach((each) => {
      const load = each.load;
      each.load = function (...given) {
        const image = displaySetService.getDisplaySetByUID(each.referencedDisplaySetInstanceUID);
        if (image && image.instances && !image.instances[0].ImageOrientationPatient) {
          planes(each.instance).forEach((plane) => {
            plane.ImageOrientationPatient = ROWS_AND_COLUMNS;
          });
        }
        return load.apply(this, given);
      };
    });
  }

  function planes(segmentation) {
    return [
      ...asList(segmentation.SharedFunctionalGroupsSequence),
      ...asList(segmentation.PerFrameFunctionalGroupsSequence),
    ].flatMap((group) => asList(group.PlaneOrientationSequence));
  }

  // Bits of several frames are packed one after another, so that most frames of 51 x 35 pixels begin inside of a byte.
  // OHIF 3.13 (its dcmjs) takes such frames out of the whole object as if the first pixel were a byte's highest bit; it
  // is the lowest (PS3.5 8.2). A frame that is retrieved by itself begins at a byte, and that OHIF reads right.
  function retrieveOddFramesSingly(dataSource) {
    const { retrieve } = dataSource;
    const original = retrieve.prefetchInstanceFrames;
    if (!original || retrieve.isChanged) {
      return;
    }
    retrieve.prefetchInstanceFrames = function (given) {
      return hasOddFrames(given.instance) ? undefined : original.call(this, given);
    };
    retrieve.isChanged = true;
  }

  function hasOddFrames(instance) {
    const isPacked = Number(instance.BitsAllocated) === 1 && Number(instance.NumberOfFrames) > 1;
    return isPacked && (instance.Rows * instance.Columns) % 8 !== 0;
  }

  // A segmentation is laid over in a viewport of another kind, so that an image may arrive when its own viewport is gone.
  // OHIF 3.13 asks the missing renderer for its camera then, and takes the exception for an image that failed to load; or
  // it still gives the viewport its images, and nobody catches that it takes none.
  function showNothingInGoneViewports({ prototype }) {
    if (prototype.isChanged) {
      return;
    }
    const { successCallback } = prototype;
    prototype.successCallback = function (...given) {
      return isGone(this) ? undefined : successCallback.apply(this, given);
    };
    ["setStack", "setImageIdIndex"].forEach((name) => {
      const original = prototype[name];
      prototype[name] = function (...given) {
        return this.isDisabled ? Promise.resolve() : original.apply(this, given);
      };
    });
    prototype.isChanged = true;
  }

  function isGone(viewport) {
    const engine = viewport.getRenderingEngine();
    return !engine || engine.hasBeenDestroyed || engine.getViewport(viewport.id) !== viewport;
  }

  function afterwards(handler, change) {
    if (!handler || handler.isChanged) {
      return;
    }
    const original = handler.getDisplaySetsFromSeries;
    handler.getDisplaySetsFromSeries = function (instances) {
      const displaySets = original.call(this, instances) || [];
      change(displaySets);
      return displaySets;
    };
    handler.isChanged = true;
  }

  // OHIF calls this with each request and image that failed; without it, it fails there itself and hides the reason.
  window.config.httpErrorHandler = function (error) {
    console.error("a request or an image failed:", error);
  };

  window.config.extensions.push({
    id: "hybridmed",
    onModeEnter({ extensionManager, servicesManager }) {
      const { displaySetService } = servicesManager.services;
      REPORTS.forEach((id) => afterwards(extensionManager.getModuleEntry(id), showAsText));
      afterwards(extensionManager.getModuleEntry(SEGMENTATIONS), (made) => layOnImage(made, displaySetService));
      extensionManager.getActiveDataSource().forEach(retrieveOddFramesSingly);
      showNothingInGoneViewports(window.cornerstone.StackViewport);
    },
  });
})();
