<?php
// Makes a stock MediaWiki 1.39 answer like a Fandom wiki: picture addresses of the CDN's shape
// (/images/a/ab/X.png/revision/latest?cb=...), <infobox> as portable infobox, wikia galleries, lazy thumbnails.
// Own code, none of Fandom's.
if ( !defined( 'MEDIAWIKI' ) ) {
	exit;
}

use MediaWiki\MediaWikiServices;

// ---- addresses -----------------------------------------------------------------------------------------------------

trait FandomUrls {
	private function fxUrl( string $scaled ): string {
		$path = $this->repo->getHashPath( $this->getName() ) . rawurlencode( $this->getName() );
		$time = wfTimestamp( TS_MW, $this->getTimestamp() );
		return $this->repo->getZoneUrl( 'public' ) . "/$path/revision/{$this->fxRevision()}$scaled?cb=$time";
	}

	private function fxRevision(): string {
		return 'latest';
	}

	public function getUrl() {
		return $this->fxUrl( '' );
	}

	public function getThumbUrl( $suffix = false ) {
		$isScaled = preg_match( '/(?:^|-)(\d+)px-/', (string)$suffix, $match );
		return $this->fxUrl( $isScaled ? "/scale-to-width-down/$match[1]" : '' );
	}
}

class FandomFile extends LocalFile {
	use FandomUrls;
}

class FandomOldFile extends OldLocalFile {
	use FandomUrls;

	private function fxRevision(): string {
		return substr( $this->getArchiveName(), 0, 14 );
	}
}

class FandomRepo extends LocalRepo {
	protected $fileFactory = [ FandomFile::class, 'newFromTitle' ];
	protected $fileFactoryKey = [ FandomFile::class, 'newFromKey' ];
	protected $fileFromRowFactory = [ FandomFile::class, 'newFromRow' ];
	protected $oldFileFromRowFactory = [ FandomOldFile::class, 'newFromRow' ];
	protected $oldFileFactory = [ FandomOldFile::class, 'newFromTitle' ];
	protected $oldFileFactoryKey = [ FandomOldFile::class, 'newFromKey' ];
}

// ---- pictures in HTML ----------------------------------------------------------------------------------------------

const FX_BLANK = 'data:image/gif;base64,R0lGODlhAQABAIABAAAAAP///yH5BAEAAAEALAAAAAABAAEAQAICTAEAOw%3D%3D';

function fxEscape( $text ): string {
	return htmlspecialchars( (string)$text, ENT_QUOTES );
}

/** An <img>; a lazy one shows a blank GIF, with the real picture in data-src and in a twin inside <noscript>. */
function fxImage( File $file, int $width, string $alt, string $class, bool $lazy ): string {
	$thumb = $file->transform( [ 'width' => $width ] );
	$url = fxEscape( $thumb && !$thumb->isError() ? $thumb->getUrl() : $file->getUrl() );
	$size = 'width="' . ( $thumb ? $thumb->getWidth() : $width ) . '" height="' . ( $thumb ? $thumb->getHeight() : 0 );
	$common = 'alt="' . fxEscape( $alt ) . "\" $size\" data-image-name=\"" . fxEscape( $file->getTitle()->getText() )
		. '" data-image-key="' . fxEscape( rawurlencode( $file->getName() ) ) . '"';
	$real = "<img src=\"$url\" $common class=\"$class\"/>";
	if ( !$lazy ) {
		return $real;
	}
	$blank = FX_BLANK;
	return "<img src=\"$blank\" $common class=\"$class lazyload\" data-src=\"$url\"/><noscript>$real</noscript>";
}

class WikiaGallery extends TraditionalImageGallery {
	private const NUM_EAGER = 4;
	private static $number = 0;

	public function toHTML() {
		$items = '';
		foreach ( $this->mImages as $place => $item ) {
			$items .= $this->fxItem( $item, $place >= self::NUM_EAGER );
		}
		$caption = $this->mCaption ? "<div class=\"gallerycaption\">$this->mCaption</div>" : '';
		return '<div id="gallery-' . self::$number++ . '" class="wikia-gallery wikia-gallery-caption-below '
			. 'wikia-gallery-position-left wikia-gallery-spacing-medium wikia-gallery-border-small '
			. "wikia-gallery-captions-left wikia-gallery-caption-size-medium\">$caption$items</div>";
	}

	private function fxItem( array $item, bool $lazy ): string {
		[ $title, $text, $alt, $link ] = $item;
		$options = $item[6] ?? [];
		$file = false;
		if ( $title->inNamespace( NS_FILE ) ) {
			if ( $this->mParser instanceof Parser ) {
				[ $file, $title ] = $this->mParser->fetchFileAndTitle( $title, [] );
			} else {
				$file = MediaWikiServices::getInstance()->getRepoGroup()->findFile( $title );
			}
		}
		$shown = $text !== '' ? "<div class=\"lightbox-caption\" style=\"width:185px;\">$text</div>" : '';
		$open = '<div class="wikia-gallery-item" style="width:185px;"><div class="thumb">'
			. '<div class="gallery-image-wrapper accent">';
		$close = "</a></div></div>$shown</div>";
		if ( !$file ) {
			$name = fxEscape( $title->getPrefixedText() );
			$href = fxEscape( $title->getLocalURL() );
			return "$open<a href=\"$href\" class=\"image broken-image new\" title=\"$name\">$name$close";
		}
		if ( !empty( $options['link-title'] ) ) {
			$link = Title::newFromLinkTarget( $options['link-title'] )->getLocalURL();
		} elseif ( !empty( $options['link-url'] ) ) {
			$link = $options['link-url'];
		}
		$isLinked = $link && $link !== 'no-link';
		$href = fxEscape( $isLinked ? $link : $file->getUrl() );
		$class = $isLinked ? 'image link-internal' : 'image lightbox';
		$image = fxImage( $file, 185, $alt !== '' ? $alt : $file->getName(), 'thumbimage', $lazy );
		return "$open<a class=\"$class\" href=\"$href\">$image$close";
	}
}

// ---- <infobox> -----------------------------------------------------------------------------------------------------

/** The tag in a template: title, image (with caption and alt), header, data, group; values are its arguments. */
class FandomInfobox {
	private Parser $parser;
	private PPFrame $frame;

	public static function render( $text, array $args, Parser $parser, PPFrame $frame ): string {
		$layout = @simplexml_load_string( "<infobox>$text</infobox>" );
		if ( !$layout ) {
			return '<strong class="error">infobox: bad xml</strong>';
		}
		$box = new self;
		$box->parser = $parser;
		$box->frame = $frame;
		return '<aside role="region" class="portable-infobox pi-background pi-border-color pi-theme-wikia '
			. 'pi-layout-default">' . $box->children( $layout ) . '</aside>';
	}

	private function children( SimpleXMLElement $node ): string {
		$html = '';
		foreach ( $node->children() as $tag => $child ) {
			switch ( $tag ) {
				case 'title':
					$html .= $this->title( $child );
					break;
				case 'image':
					$html .= $this->image( $child );
					break;
				case 'header':
					$html .= '<h2 class="pi-item pi-header pi-secondary-font pi-item-spacing '
						. 'pi-secondary-background">' . fxEscape( $child ) . '</h2>';
					break;
				case 'group':
					$html .= '<section class="pi-item pi-group pi-border-color">' . $this->children( $child )
						. '</section>';
					break;
				case 'data':
					$html .= $this->data( $child );
					break;
			}
		}
		return $html;
	}

	private function value( ?SimpleXMLElement $node ): string {
		$source = $node ? (string)$node['source'] : '';
		$value = $source !== '' ? trim( (string)$this->frame->getArgument( $source ) ) : '';
		if ( $value === '' && isset( $node->default ) ) {
			$value = trim( $this->parser->replaceVariables( (string)$node->default, $this->frame ) );
		}
		return $value;
	}

	private function parsed( string $value ): string {
		return $this->parser->recursiveTagParse( $value, $this->frame );
	}

	private function title( SimpleXMLElement $node ): string {
		$value = $this->value( $node );
		return $value === '' ? '' : '<h2 class="pi-item pi-item-spacing pi-title pi-secondary-background" data-source="'
			. fxEscape( $node['source'] ) . '">' . $this->parsed( $value ) . '</h2>';
	}

	private function image( SimpleXMLElement $node ): string {
		$name = preg_replace( '/^\[\[|\]\]$|\|.*$/', '', $this->value( $node ) );
		$name = preg_replace( '/^(File|Image):/i', '', $name );
		$title = $name !== '' ? Title::makeTitleSafe( NS_FILE, $name ) : null;
		$file = $title ? $this->parser->fetchFileAndTitle( $title, [] )[0] : false;
		if ( !$file ) {
			return '';
		}
		$caption = $this->value( $node->caption );
		$alt = $this->value( $node->alt );
		$shown = $caption === '' ? ''
			: '<figcaption class="pi-item-spacing pi-caption">' . $this->parsed( $caption ) . '</figcaption>';
		return '<figure class="pi-item pi-image" data-source="' . fxEscape( $node['source'] ) . '"><a href="'
			. fxEscape( $file->getUrl() ) . '" class="image image-thumbnail" title="' . fxEscape( $alt ) . '">'
			. fxImage( $file, 270, $alt !== '' ? $alt : $file->getName(), 'pi-image-thumbnail', false )
			. "</a>$shown</figure>";
	}

	private function data( SimpleXMLElement $node ): string {
		$value = $this->value( $node );
		return $value === '' ? '' : '<div class="pi-item pi-data pi-item-spacing pi-border-color" data-source="'
			. fxEscape( $node['source'] ) . '"><h3 class="pi-data-label pi-secondary-font">' . fxEscape( $node->label )
			. '</h3><div class="pi-data-value pi-font">' . $this->parsed( $value ) . '</div></div>';
	}
}

// ---- hooks ---------------------------------------------------------------------------------------------------------

$wgHooks['ParserFirstCallInit'][] = static function ( Parser $parser ) {
	$parser->setHook( 'infobox', [ FandomInfobox::class, 'render' ] );
	return true;
};
$wgHooks['GalleryGetModes'][] = static function ( array &$modes ) {
	$modes['wikia'] = WikiaGallery::class;
	return true;
};
$wgGalleryOptions['mode'] = 'wikia';
$wgHooks['ThumbnailBeforeProduceHTML'][] = static function ( $thumb, &$attributes, &$link ) {
	$file = $thumb->getFile();
	$page = RequestContext::getMain()->getTitle();
	if ( !$file || ( $page && $page->inNamespace( NS_FILE ) ) ) {
		return true;
	}
	$attributes['data-image-name'] = $file->getTitle()->getText();
	$attributes['data-image-key'] = rawurlencode( $file->getName() );
	$attributes['data-src'] = $attributes['src'];
	$attributes['src'] = FX_BLANK;
	$attributes['class'] = trim( ( $attributes['class'] ?? '' ) . ' lazyload' );
	unset( $attributes['srcset'] );
	if ( $link && strpos( $link['href'] ?? '', '/wiki/File:' ) === 0 ) {
		$link['href'] = $file->getUrl();
	}
	return true;
};
